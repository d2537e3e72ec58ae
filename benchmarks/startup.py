"""Start-up time of the command line relative to `python -c "import click, pydantic"`.

    python benchmarks/startup.py

Runs each command in turns with the reference, `ROUNDS` times, and prints medians and their ratio. `experiment` is
missing: its dry run reads the data.
"""

import statistics
import subprocess
import sys
import time

from inandout.entry_points import STAGES

ROUNDS, LIMIT = 9, 4.0
REFERENCE = ["-c", "import click, pydantic"]
COMMANDS = [["--help"], ["clasify"], ["classify", "--epochs", "0"], ["classify", "--help"]]
COMMANDS += [[name, "--dry-run"] for name, stage in STAGES.items() if not stage.plan_location]


def seconds(arguments: list[str]) -> float:
    """Return the seconds of one Python process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    return time.perf_counter() - started


def main() -> None:
    """Print one row for each command."""
    print("| command | milliseconds | times the reference |\n|---|---|---|")
    ratios, references = [], []
    for command in COMMANDS:
        turns = [(seconds(["-m", "inandout", *command]), seconds(REFERENCE)) for _ in range(ROUNDS)]
        ours, reference = (statistics.median(each) for each in zip(*turns, strict=True))
        ratios.append(ours / reference)
        references.append(reference)
        print(f"| `inandout {' '.join(command)}` | {1000 * ours:.0f} | {ratios[-1]:.1f} |", flush=True)
    usual = 1000 * statistics.median(references)
    print(f"\nlargest ratio {max(ratios):.1f}, limit {LIMIT:.0f}; reference {usual:.0f} ms")


if __name__ == "__main__":
    main()
