"""Start-up time of the command line.

    python benchmarks/startup.py                          # help, typos and dry runs
    python benchmarks/startup.py --answers [--before FOLDER]

The first form compares commands that compute nothing with `python -c "import click, pydantic"`, in turns, and prints
medians and their ratio. `experiment` is missing: its dry run reads the data.

The second form measures commands that compute little, in a new store in which they have nothing to work on: all that
they do before they answer. It prints CPU seconds, which other processes on the machine change less than the time on the
clock. `--before` is a checkout of another version, which is measured in turns with this one.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from inandout.entry_points import STAGES

ROUNDS, LIMIT = 9, 4.0
REFERENCE = ["-c", "import click, pydantic"]
COMMANDS = [["--help"], ["clasify"], ["classify", "--epochs", "0"], ["classify", "--help"]]
COMMANDS += [[name, "--dry-run"] for name, stage in STAGES.items() if not stage.plan_location]

ANSWER_ROUNDS, SECONDS = 3, 5.0
RUN = "0" * 32
ANSWERS = [["clean"], ["rollback"], ["report"], ["review", "--pool", RUN], ["extend-pool", "--pool", RUN]]
ANSWERS += [[name, "--run", RUN] for name in ("promote", "export", "probe-shortcut")]
ANSWERS += [["filter", "--pool", RUN, "--run", RUN], ["distance", "--pools", RUN, "--model", RUN]]


def seconds(arguments: list[str]) -> float:
    """Return the seconds of one Python process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    return time.perf_counter() - started


def compare_with_reference() -> None:
    """Print one row for each command that computes nothing."""
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


def cpu_seconds(arguments: list[str], package: Path, folder: Path) -> float:
    """Return the CPU seconds of one command of a checkout of the package, run in `folder`."""
    environment = os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "inandout", *arguments], cwd=folder, env=environment, capture_output=True, check=False
    )
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def compare_answers(versions: list[Path]) -> None:
    """Print one row for each command that computes little; the last version is this one."""
    head = ["command", *["before"] * (len(versions) - 1), "CPU seconds", *["ratio"] * (len(versions) - 1)]
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        cpu_seconds(["clean"], versions[-1], Path(folder))  # creates the store
        for command in ANSWERS:
            turns = [[cpu_seconds(command, each, Path(folder)) for each in versions] for _ in range(ANSWER_ROUNDS)]
            best = [min(each) for each in zip(*turns, strict=True)]
            slowest = max(slowest, best[-1])
            ratio = [f"{best[0] / best[-1]:.1f}"] if len(best) > 1 else []
            print(f"| `{command[0]}` | {' | '.join([*(f'{value:.1f}' for value in best), *ratio])} |", flush=True)
    print(f"\nslowest {slowest:.1f} s, limit {SECONDS:.0f} s")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", action="store_true", help="measure commands that compute little")
    parser.add_argument("--before", type=Path, help="checkout of another version to compare with")
    given = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    if given.answers:
        compare_answers([*([given.before.resolve()] if given.before else []), here])
    else:
        compare_with_reference()


if __name__ == "__main__":
    main()
