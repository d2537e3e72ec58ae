"""Start a command twice at once: both processes succeed or print a reason, and the result is as from one process."""

from pathlib import Path

from benchmarks.torture.forked import Command
from benchmarks.torture.kills import STAGES, undisturbed
from benchmarks.torture.outcome import Outcome, unclear
from benchmarks.torture.project import differences, restore, snapshot

REFUSALS = ("already exists",)
"""What one of two processes may say: both were to write the same new file."""


def run_twice(count: int, template: Path, project: Path, only: list[str] | None = None) -> Outcome:
    """Run `count` pairs of processes, one stage after the other."""
    outcome = Outcome("two processes")
    names = only or [name for name in STAGES if name != "search"]
    for number, name in enumerate(names[:count]):
        wanted, _, volatile = undisturbed(name, template, project)
        for _ in range(len(range(number, count, len(names)))):
            restore(template, project)
            arguments = STAGES[name](project)
            pair = [Command(project, arguments) for _ in range(2)]
            ended = [command.wait() or command.kill() for command in pair]
            refused = [each for each in ended if each.code == 2 and any(text in each.message for text in REFUSALS)]
            failed = [each for each in ended if each.code and each not in refused]
            changed = set(differences(wanted, snapshot(project))) - volatile
            if name == "main":  # each process logs its table in a run of its own; cells are computed once
                changed = {file for file in changed if not file.endswith(" twice")}
            lost = f"differs: {sorted(changed)[:8]}" if changed else ""
            if failed or len(refused) > 1:
                lost = f"code {ended[0].code} and {ended[1].code}: {(failed or refused)[0].message[-1500:]}"
            outcome.count(name, lost=lost, unclear=next((unclear(each.message) for each in refused), ""))
    return outcome
