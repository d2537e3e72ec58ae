"""Make a person's decisions on a pool through the real page in Chromium, by its keys, from a CSV file.

    python experiments/replay_review.py --pool <run id or folder> --decisions looked_at.csv --reviewer Anna

The file has the columns `number,decision,reason`: the number that the page shows at the image (1 is the first row of
the pool), keep, reject or unsure, and a reason or nothing. The decisions are the file's alone: whoever wrote it has
looked at the images. A reason of the page's list is given by its digit, any other is typed. What the reviewer has
said already is passed over, so a stopped replay goes on. Ends with Finish, and prints what the page says.
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
    """A decision of a person."""

    number: int
    decision: str
    reason: str


def read_decisions(path: Path) -> list[Row]:
    """Rows in the order of their numbers; exits with a sentence where one is wrong."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        given = list(csv.DictReader(file))
    if not given or not {"number", "decision", "reason"} <= given[0].keys():
        sys.exit(f"{path}: needs the columns number,decision,reason and at least one row")
    rows = []
    for line, one in enumerate(given, start=2):
        number, decision, reason = (
            one["number"].strip(),
            one["decision"].strip(),
            " ".join((one["reason"] or "").split()),
        )
        if not number.isdecimal() or decision not in KEYS or len(reason) > 300:
            sys.exit(
                f"{path}, line {line}: {one}: a number, one of {', '.join(KEYS)}, and up to 300 characters are needed"
            )
        rows.append(Row(int(number), decision, reason))
    twice = [number for number, count in Counter(row.number for row in rows).items() if count > 1]
    if twice:
        sys.exit(f"{path}: {twice[0]} is decided twice; remove one of the rows")
    return sorted(rows)


def open_server(pool: str) -> tuple["subprocess.Popen[str]", str]:
    """The page's server, and its address."""
    command = [sys.executable, "-m", "inandout", "review", "--pool", pool, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    found = re.search(r"http://\S+", server.stdout.readline())
    if found is None:
        sys.exit(server.wait() or 1)  # it has said why
    return server, found.group()


def enter(page: Page, address: str, name: str) -> int:
    """Open the page as a person, one image at a time; how many images there are."""
    page.goto(address)
    page.wait_for_selector("#name-dialog[open]")
    page.fill("#name", name)
    page.keyboard.press("Enter")
    page.wait_for_selector("#name-dialog", state="hidden")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    return int(page.evaluate("list.length"))


def decide(page: Page, row: Row) -> None:
    """Move to an image and decide on it, by keys; nothing where the same was said before."""
    while (away := row.number - 1 - int(page.evaluate("here"))) != 0:
        step = 10 if abs(away) >= 10 else 1
        page.keyboard.press(
            {10: "PageDown", 1: "ArrowRight", -1: "ArrowLeft", -10: "PageUp"}[step if away > 0 else -step]
        )
    said = page.evaluate("mine(list[here].id)")
    if (said["decision"], said["reason"]) == (row.decision, row.reason):
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
    page.evaluate("queue")  # saved, or the page shows what was wrong
    if page.is_visible("#trouble"):
        sys.exit(f"image {row.number}: {page.text_content('#trouble')}")


def replay(page: Page, address: str, reviewer: str, rows: list[Row], shots: Path | None) -> str:
    """Make all decisions, and finish; what the page says at the end."""
    there = enter(page, address, reviewer)
    if rows[-1].number > there or rows[0].number < 1:
        sys.exit(f"numbers go from {rows[0].number} to {rows[-1].number}, and the pool's from 1 to {there}")
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
    parser.add_argument("--reviewer", required=True, help="whose decisions these are")
    parser.add_argument("--screenshots", type=Path, help="folder for two screenshots at the end (default none)")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser (default /usr/bin/chromium)")
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
