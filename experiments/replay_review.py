"""Enter review decisions from a CSV file on the review page in Chromium, with its keyboard shortcuts.

    python experiments/replay_review.py --pool <run id or folder> --decisions looked_at.csv --reviewer Anna

The file has the columns `number,decision,reason`: the number that the page shows next to the image (1 is the first row
of the pool); keep, reject or unsure; a reason, or nothing. The author of the file has looked at the images. The script
selects a listed reason by its digit and types any other. It skips decisions that the reviewer has already made, so
that a stopped replay continues. At the end it presses Finish and prints the message of the page.
"""

import argparse
import csv
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Page, sync_playwright
from tqdm import tqdm

KEYS = {"keep": "k", "reject": "r", "unsure": "u"}


class Row(NamedTuple):
    """A decision of a reviewer."""

    number: int
    decision: str
    reason: str


def read_decisions(path: Path) -> list[Row]:
    """Return the rows sorted by number; exit with a message if a row is invalid."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        records = list(csv.DictReader(file))
    if not records or not {"number", "decision", "reason"} <= records[0].keys():
        sys.exit(f"{path}: needs the columns number,decision,reason and at least one row")
    rows = []
    for line, record in enumerate(records, start=2):
        number, decision, reason = (
            record["number"].strip(),
            record["decision"].strip(),
            " ".join((record["reason"] or "").split()),
        )
        if not number.isdecimal() or decision not in KEYS or len(reason) > 300:
            sys.exit(
                f"{path}, line {line}: {record}; give a number, one of {', '.join(KEYS)}, and at most 300 characters"
            )
        rows.append(Row(int(number), decision, reason))
    duplicates = [number for number, count in Counter(row.number for row in rows).items() if count > 1]
    if duplicates:
        sys.exit(f"{path}: image {duplicates[0]} has two rows; remove one of them")
    return sorted(rows)


def open_server(pool: str) -> tuple["subprocess.Popen[str]", str]:
    """Start the server of the page; return its process and address."""
    command = [sys.executable, "-m", "inandout", "review", "--pool", pool, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = re.search(r"http://\S+", server.stdout.readline())
    if address is None:
        sys.exit(server.wait() or 1)  # the server has printed the reason
    return server, address.group()


def enter(page: Page, address: str, name: str) -> int:
    """Open the page as a reviewer, in the view of one image; return the number of images."""
    page.goto(address)
    page.wait_for_selector("#name-dialog[open]")
    page.fill("#name", name)
    page.keyboard.press("Enter")
    page.wait_for_selector("#name-dialog", state="hidden")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    return int(page.evaluate("list.length"))


def decide(page: Page, row: Row) -> None:
    """Move to an image and enter the decision, unless the reviewer has already made it."""
    while (distance := row.number - 1 - int(page.evaluate("current"))) != 0:
        step = 10 if abs(distance) >= 10 else 1
        page.keyboard.press(
            {10: "PageDown", 1: "ArrowRight", -1: "ArrowLeft", -10: "PageUp"}[step if distance > 0 else -step]
        )
    previous = page.evaluate("mine(list[current].id)")
    if (previous["decision"], previous["reason"]) == (row.decision, row.reason):
        return
    listed = page.evaluate("session.reasons")
    if row.decision == "reject" and row.reason in listed:
        page.keyboard.press(str(listed.index(row.reason) + 1))
    else:
        if row.reason:
            page.keyboard.press("t")
            page.keyboard.insert_text(row.reason)
            page.keyboard.press("Enter")
        page.keyboard.press(KEYS[row.decision])
    page.evaluate("queue")  # wait until it is saved, or the page shows an error
    if page.is_visible("#trouble"):
        sys.exit(f"image {row.number}: {page.text_content('#trouble')}")


def replay(page: Page, address: str, reviewer: str, rows: list[Row], shots: Path | None) -> str:
    """Enter all decisions and finish the review; return the message of the page."""
    n_images = enter(page, address, reviewer)
    if rows[-1].number > n_images or rows[0].number < 1:
        sys.exit(f"the rows number images {rows[0].number} to {rows[-1].number}, but the pool has 1 to {n_images}")
    for row in tqdm(rows, "decide", unit="image", disable=None):
        decide(page, row)
    if shots is not None:
        page.screenshot(path=shots / "one.png")
        page.keyboard.press("Escape")
        page.wait_for_timeout(1500)
        page.screenshot(path=shots / "grid.png")
    page.click("#finish")
    page.wait_for_selector("#finish-dialog[open]", timeout=120_000)
    return page.text_content("#finish-text") or ""


def main() -> None:
    """Replay the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", required=True, help="run id of augment, extend-pool or label-errors, or a folder")
    parser.add_argument("--decisions", required=True, type=Path, help="CSV file with number,decision,reason")
    parser.add_argument("--reviewer", required=True, help="name of the reviewer")
    parser.add_argument("--screenshots", type=Path, help="folder for two screenshots at the end (default: none)")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="path of the browser (default: %(default)s)")
    options = parser.parse_args()
    rows, started = read_decisions(options.decisions), time.monotonic()
    server, address = open_server(options.pool)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.set_default_timeout(120_000)
            print(replay(page, address, options.reviewer, rows, options.screenshots))
            browser.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
    print(f"{len(rows)} decisions in {time.monotonic() - started:.0f} s: {dict(Counter(row.decision for row in rows))}")


if __name__ == "__main__":
    main()
