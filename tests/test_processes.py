import json
import subprocess
import sys

import pytest

from inandout import processes
from inandout.processes import is_dead, this_process


def test_the_clock_does_not_change_a_living_process(monkeypatch: pytest.MonkeyPatch) -> None:
    name = this_process()
    monkeypatch.setattr("time.time", lambda: 0.0)
    monkeypatch.setattr("psutil.boot_time", lambda: 12345.0)
    assert this_process() == name
    assert not is_dead(name)


def test_a_process_that_has_ended_or_is_a_zombie_is_dead() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "from inandout.processes import *; print(this_process(), flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    name = child.stdout.readline()
    assert not is_dead(name)
    child.kill()
    child.communicate()
    assert is_dead(name)


@pytest.mark.parametrize(
    "name", ["", "junk", "[]", "{}", "null", "3", "[1, 2, 3]", '["a", "b", "c", "d", "e", "f"]', "[" * 5000]
)
def test_a_name_that_cannot_be_parsed_is_not_known(name: str) -> None:
    assert not is_dead(name)


@pytest.mark.parametrize(("machine", "namespace", "dead"), [
    ("id", processes._INITIAL_NAMESPACE, True), ("", processes._INITIAL_NAMESPACE, False), ("id", "pid:[7]", False),
])  # fmt: skip
def test_a_restart_ends_processes_of_the_same_machine_outside_containers(
    monkeypatch: pytest.MonkeyPatch, machine: str, namespace: str, dead: bool
) -> None:
    monkeypatch.setattr(processes, "_machine", lambda: ["host", machine, "second boot", namespace])
    assert is_dead(json.dumps(["host", machine, "first boot", namespace, 1, 1])) == dead


@pytest.mark.parametrize(("quota", "cores"), [
    ("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("", 8), ("junk", 8),
])  # fmt: skip
def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch, quota: str, cores: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(processes, "_read", lambda _: quota)
    assert processes.allowed_cores() == cores
