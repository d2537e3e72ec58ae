"""A short form of the torture test; `make torture` kills longer stages and fills real disks."""

from pathlib import Path

import pytest

from benchmarks.torture.full_disk import NAMES
from benchmarks.torture.hostile_files import read_hostile
from benchmarks.torture.kills import STAGES, WEIGHTS, kill_stages
from benchmarks.torture.outcome import Outcome, table, unclear
from benchmarks.torture.project import write_data
from benchmarks.torture.two_processes import run_twice

pytestmark = pytest.mark.slow

QUICK = ["surfaces", "check"]


@pytest.fixture
def template(tmp_path: Path) -> Path:
    write_data(tmp_path / "project" / "data")
    return (tmp_path / "project").rename(tmp_path / "template")


def test_killed_commands_give_the_result_of_undisturbed_ones(template: Path, tmp_path: Path) -> None:
    outcomes = list(kill_stages(10, 0, template, tmp_path / "project", QUICK))
    assert sum(outcome.survived for outcome in outcomes) == 10, outcomes


def test_two_processes_at_once_give_the_result_of_one(template: Path, tmp_path: Path) -> None:
    outcome = run_twice(4, template, tmp_path / "project", QUICK)
    assert outcome.survived == 4, outcome


def test_hostile_files_are_refused_with_one_sentence(tmp_path: Path) -> None:
    outcome = read_hostile(69, 3, tmp_path / "files")
    assert outcome.survived == 69, "\n".join(outcome.notes)


def test_a_failure_is_counted_and_shown() -> None:
    outcome = Outcome("part")
    outcome.count("good")
    outcome.count("gone", lost="3 decisions", unclear="also")
    outcome.count("odd", unclear=unclear("Traceback (most recent call last)"))
    assert table([outcome]).splitlines()[-1] == "| part | 3 | 1 | 1 | 1 |  |"
    assert [note.split(": ")[1] for note in outcome.notes] == ["gone", "odd"]
    assert unclear("") == "no message"
    assert unclear("one sentence; the fix") == ""


def test_every_stage_has_a_weight() -> None:
    assert WEIGHTS.keys() == STAGES.keys() >= set(NAMES)
