"""Kill the stages of `STAGES` at random moments, repeat the command, and compare with an undisturbed run."""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.torture.forked import Command, run
from benchmarks.torture.outcome import Outcome, unclear
from benchmarks.torture.project import ADAPTER, FIT, SIZE, TUNE, differences, restore, run_ids, snapshot

DRAW = ["--prompts", "skt background", "--steps", "2", "--guidance-mode", "plain", "--alpha", "0.5"]
STAGES: dict[str, Callable[[Path], list[str]]] = {
    "surfaces": lambda _: [
        "surfaces", *SIZE, "--out", "data/new", "--train-negatives", "30", "--train-positives", "9",
        "--test-negatives", "9", "--test-positives", "9",
    ],
    "check": lambda _: ["check", *SIZE, "--data", "data/parts.csv", "--write", "usable.csv"],
    "classify": lambda _: ["classify", *FIT, "--n-aug", "4", "--seed", "1"],
    "augment memseg": lambda _: ["augment", *SIZE, "--data", "data/parts.csv", "--source", "memseg", "--n-aug", "12"],
    "finetune": lambda _: ["finetune", *ADAPTER, "--seed", "1"],
    "augment ddpm": lambda project: [
        "augment", *TUNE, *DRAW, "--source", "ddpm", "--n-aug", "8", "--adapter", run_ids(project, "finetune")[0],
    ],
    "augment inpaint": lambda project: [
        "augment", *TUNE, *DRAW, "--source", "inpaint", "--n-aug", "6", "--adapter", run_ids(project, "finetune")[0],
    ],
    "main": lambda _: ["main", *FIT, "--n-aug", "4", "--sources", "none,memseg", "--shots", "full", "--base", "base"],
    "search": lambda _: [
        "search", *FIT, "--n-aug", "4", "--base", "base", "--n-trials", "3", "--seeds", "0", "--fresh-seeds", "7",
        "--n-held-out", "4", "--epochs", "1",
    ],
    "promote": lambda project: ["promote", "--run", run_ids(project, "classify")[0], "--points", "validation"],
    "export": lambda project: ["export", "--run", run_ids(project, "classify")[0], "--rounds", "10"],
}  # fmt: skip
"""Stage to its command in a copy of the template."""


WEIGHTS = {
    "surfaces": 6, "check": 4, "augment memseg": 6, "finetune": 6, "augment ddpm": 6, "augment inpaint": 4,
    "classify": 3, "main": 2, "promote": 2, "export": 2, "search": 1,
}  # fmt: skip
"""How often a stage is killed relative to the others."""


HISTORY = {"search": ("/results.md", "/study/", "metric share_of_diffusion_reused")}
"""Stage to results that name every attempt: a killed trial stays in the study, and is tried again."""


def kill_stages(count: int, seed: int, template: Path, project: Path, only: list[str]) -> Iterator[Outcome]:
    """Kill `count` times in all."""
    names = [name for name in STAGES if name in (only or STAGES)]
    turns = [name for name in names for _ in range(WEIGHTS[name])]
    for name in names:
        share = sum(turns[number % len(turns)] == name for number in range(count))
        yield kill_stage(name, share, seed, template, project)


def kill_stage(name: str, count: int, seed: int, template: Path, project: Path) -> Outcome:
    """Kill one stage `count` times; what differs between two undisturbed runs is not compared."""
    outcome = Outcome(f"kill {name}")
    if not count:
        return outcome
    wanted, seconds, volatile = undisturbed(name, template, project)
    rng = random.Random(f"{name} {seed}")
    for _ in range(count):
        moment = rng.uniform(0, seconds)
        restore(template, project)
        command = Command(project, STAGES[name](project))
        ended = command.wait(moment) or command.kill()
        what = f"after {moment:.2f} of {seconds:.2f} s (code {ended.code})"
        again = run(project, STAGES[name](project)) if ended.code else ended
        if again.code:
            outcome.count(what, lost=f"code {again.code}: {again.message[-1500:]}", unclear=unclear(again.message))
            continue
        changed = set(differences(wanted, snapshot(project))) - volatile
        changed = {file for file in changed if not any(part in file for part in HISTORY.get(name, ()))}
        outcome.count(what, lost=f"differs: {sorted(changed)[:8]}" if changed else "")
    outcome.remark = f"not compared: {len(volatile)} of {len(wanted)} files"
    if volatile:
        outcome.notes.append(f"{outcome.part}: not compared: {', '.join(sorted(volatile))}")
    return outcome


def undisturbed(name: str, template: Path, project: Path) -> tuple[dict[str, str], float, set[str]]:
    """Return the result of a stage, its seconds, and what differs when it is run twice."""
    results = []
    for _ in range(2):
        restore(template, project)
        ended = run(project, STAGES[name](project))
        assert ended.code == 0, f"{name}: {ended.message}"
        results.append(snapshot(project))
    shutil.rmtree(project)
    return results[0], ended.seconds, set(differences(*results))
