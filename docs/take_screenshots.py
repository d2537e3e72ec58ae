"""Take screenshots of the review page for the documentation: MemSeg images of the embedded surfaces, two reviewers.

python docs/take_screenshots.py      # needs Chromium and the extra `dev`
"""

import argparse
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from inandout.data.config import DataConfig, Geometry
from inandout.data.manifest import Review, Sample, write_manifest
from inandout.data.prepare import prepare
from inandout.memseg.config import MemSegConfig
from inandout.memseg.pool import write_pool
from inandout.review.app import build_app
from inandout.review.decisions import DecisionLog
from inandout.review.server import serve_in_thread
from inandout.review.session import ReviewSession, build_session

HERE = Path(__file__).parent
BEN: tuple[Review, ...] = ("keep", "reject", "keep", "keep", "unsure", "keep", "keep", "reject", "keep", "keep")
"""Earlier decisions of the second reviewer."""


def memseg_session(folder: Path) -> ReviewSession:
    """Return the review of a small MemSeg pool of the embedded surfaces, with real images for comparison."""
    real = prepare(DataConfig(), 0)
    negatives = [sample for sample in real if sample.split == "train" and sample.label == 0]
    pool: list[Sample] = write_pool(negatives, folder, n=36, geometry=Geometry(), seed=0, config=MemSegConfig())
    write_manifest(pool, folder / "manifest.csv")
    return build_session("pool of MemSeg images", folder, pool, real)


def take_screenshots(browser: Browser, address: str) -> None:
    """Save the grid of a review in progress, and the view of one image."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address)
    page.wait_for_selector("#name-dialog[open]")
    page.keyboard.type("Anna")
    page.keyboard.press("Enter")
    page.wait_for_selector("#name-dialog", state="hidden")
    for key in "kkkru1kkk":
        page.keyboard.press(key)
    page.wait_for_selector("text=9 of 36 decided by you")
    save(page, "review_grid")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(2000)
    save(page, "review")


def save(page: Page, name: str) -> None:
    """Save a JPEG, so that the page loads fast."""
    page.wait_for_timeout(1000)  # images load after the page
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        page.screenshot(path=file.name)
        Image.open(file.name).convert("RGB").save(HERE / f"{name}.jpg", quality=85)


def main() -> None:
    """Take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="path of the browser (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        session, log = memseg_session(Path(folder)), DecisionLog(Path(folder) / "decisions" / "decisions.jsonl")
        for image, decision in zip(session.ids, BEN, strict=False):
            log.decide(image, decision, "", "Ben", 0)
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        with serve_in_thread(build_app(session, log, lambda: "nothing is kept of a screenshot")) as address:
            take_screenshots(browser, address)
        browser.close()


if __name__ == "__main__":
    main()
