"""Kills, full disks, malformed requests, hostile files and two processes at once, in one table.

    python -m benchmarks.torture --kills 200 --disks 120 --requests 500 --files 300 --pairs 20

It works in a temporary folder with a dataset of 30 images of 32x32, and needs Linux or macOS.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.torture.forked import warm_up
from benchmarks.torture.outcome import table


def main() -> None:
    """Run the chosen parts and print the table; the exit status is 1 if anything was lost or unclear."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, count in (("kills", 200), ("disks", 120), ("requests", 500), ("files", 300), ("pairs", 20)):
        parser.add_argument(f"--{name}", type=int, default=count, help=f"number of attempts, default {count}")
    parser.add_argument("--stages", default="", help="stages to kill, separated by commas; default all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments, requests and files")
    options = parser.parse_args()
    started = time.monotonic()
    warm_up()
    from benchmarks.torture.parts import run_parts

    with tempfile.TemporaryDirectory() as folder:
        outcomes = run_parts(options, Path(folder))
    print(f"{table(outcomes)}\n\n{(time.monotonic() - started) / 60:.0f} minutes")
    sys.exit(any(outcome.lost or outcome.unclear for outcome in outcomes))


if __name__ == "__main__":
    main()
