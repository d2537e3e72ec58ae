"""Measure how smoothly a pool of 2000 images scrolls on the review page in Chromium.

    python benchmarks/review_scroll.py

Draws 2000 surfaces, opens them on the page, and prints the time until the first card shows its image and the number of
small images fetched by then. Then it scrolls through the grid at 100 px per frame (6000 px per second at 60 frames per
second) and prints the time between frames, the tasks over 50 ms, and the processor time of the main thread per frame,
which does not depend on other programs. Without a graphics card, the time between frames includes software rendering.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright
from tqdm import tqdm

from inandout.data.images import write_image
from inandout.data.manifest import Sample
from inandout.data.surfaces import KINDS, draw_surface
from inandout.review.app import build_app
from inandout.review.decisions import DecisionLog
from inandout.review.server import serve_in_thread
from inandout.review.session import ReviewSession, build_session

SCROLL = """async () => {
    const grid = document.getElementById("grid"), times = [], long = [];
    new PerformanceObserver((list) => long.push(...list.getEntries().map((one) => one.duration)))
        .observe({ type: "longtask" });
    let before = await new Promise(requestAnimationFrame);
    while (grid.scrollTop + grid.clientHeight < grid.scrollHeight - 1) {
        grid.scrollTop += 100;
        const now = await new Promise(requestAnimationFrame);
        times.push(now - before);
        before = now;
    }
    await new Promise((done) => setTimeout(done, 200));
    return [times, long];
}"""
FETCHED = "performance.getEntriesByType('resource').filter((one) => one.name.includes('/small/')).length"


def draw_pool(folder: Path, count: int) -> ReviewSession:
    """Draw surfaces with defects in the size of the embedded dataset."""
    rows = []
    for number in tqdm(range(count), "surfaces", unit="image", disable=None):
        path = folder / f"{number:06d}.png"
        write_image(path, draw_surface(64, 192, number, KINDS[number % len(KINDS)], "ground").image)
        rows.append(Sample(image=path, label=1, split="train", origin="ddpm", seed=number, prompt="skt ground cracked"))
    return build_session(f"{count} surfaces", folder, rows, [])


def first_image(page: Page, address: str) -> float:
    """Return the seconds from opening the page until the first card shows its image."""
    started = time.perf_counter()
    page.goto(address)
    while not page.evaluate("document.querySelector('.card img')?.naturalWidth > 0"):
        time.sleep(0.01)
    return time.perf_counter() - started


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="number of images (default: 2000)")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="path of the browser (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        session = draw_pool(Path(name), options.count)
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        log = DecisionLog(Path(name) / "log" / "decisions.jsonl")
        with serve_in_thread(build_app(session, log, lambda: "")) as address:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.set_default_timeout(600_000)
            seconds, fetched = first_image(page, address), page.evaluate(FETCHED)
            page.fill("#name", "benchmark")
            page.keyboard.press("Enter")
            devtools = page.context.new_cdp_session(page)
            devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
            before = _thread_seconds(devtools.send("Performance.getMetrics"))
            times, long_tasks = page.evaluate(SCROLL)
            thread_seconds = _thread_seconds(devtools.send("Performance.getMetrics")) - before
        browser.close()
    print(f"{len(session.ids)} images, 1280x800, {len(times)} frames")
    print(f"first image  {seconds:6.2f} s after opening, {fetched} small images fetched by then")
    print(f"frames         {np.median(times):6.1f} ms median, {np.quantile(times, 0.95):.1f} p95, {max(times):.0f} max")
    print(f"long tasks     {len(long_tasks):6d} over 50 ms, the longest {max(long_tasks, default=0):.0f} ms")
    print(f"main thread    {thread_seconds / len(times) * 1000:6.2f} ms per frame; a frame has 16.7 ms")


def _thread_seconds(metrics: dict[str, Any]) -> float:
    return next(metric["value"] for metric in metrics["metrics"] if metric["name"] == "ThreadTime")


if __name__ == "__main__":
    main()
