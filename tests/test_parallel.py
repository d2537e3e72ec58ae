"""Tasks run sequentially, in processes and on a cluster: every task completes, crashes are retried, errors isolated."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from pydantic import ValidationError

from inandout.errors import InputError
from inandout.parallel import MAX_RETRIES, ParallelConfig, run_all
from inandout.processes import allowed_cores

TWO = ParallelConfig(workers=2)


def square(number: int) -> int:
    if number == 3:
        raise InputError("3 cannot be done")
    return number**2


def process_and_threads(number: int) -> tuple[int, int]:
    return os.getpid(), torch.get_num_threads()


def note(folder: Path, event: str) -> list[str]:
    """Append a line to the file of an event and return all its lines."""
    with (folder / event).open("a") as file:
        file.write("once\n")
    return (folder / event).read_text().splitlines()


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.05)


def each_dies_once(folder: Path, number: int) -> int:
    """Crash once in every task except the first; each task waits for the one before it."""
    if number:
        wait_for(folder / f"{number - 1} ended")
        if len(note(folder, f"{number} reached")) == 1:
            time.sleep(0.5)  # let the parent receive the previous result
            os.kill(os.getpid(), signal.SIGKILL)
    note(folder, f"{number} ended")
    return number


def first_dies_once(folder: Path, number: int) -> int:
    """Crash once in the first task after the second has started; the second waits for the first."""
    starts = note(folder, f"{number} started")
    if number == 0:
        wait_for(folder / "1 started")
        if len(starts) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        note(folder, "0 ended")
    wait_for(folder / "0 ended")
    return number


def one_dies(number: int) -> int:
    """Crash in task 1 on every attempt, before another task has ended."""
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(2)
    return number


def breaks(number: int) -> int:
    raise ZeroDivisionError(number)


@pytest.mark.parametrize("config", [ParallelConfig(), TWO])
def test_every_task_completes_and_an_input_error_ends_only_its_task(config: ParallelConfig) -> None:
    outcomes = sorted(run_all(square, range(5), config))
    assert [task.result for task in outcomes] == [0, 1, 4, None, 16]
    assert [str(task.error) for task in outcomes if task.error] == ["3 cannot be done"]


def test_sequential_tasks_run_in_this_process() -> None:
    assert {task.result[0] for task in run_all(process_and_threads, range(2), ParallelConfig())} == {os.getpid()}


@pytest.mark.slow
def test_workers_are_other_processes_that_share_the_cores() -> None:
    results = [task.result for task in run_all(process_and_threads, range(4), TWO)]
    assert os.getpid() not in {process for process, _ in results}
    assert {threads for _, threads in results} == {max(allowed_cores() // 2, 1)}


@pytest.mark.slow
@pytest.mark.torture
def test_tasks_of_killed_workers_are_retried_however_many_crash(tmp_path: Path) -> None:
    outcomes = sorted(run_all(partial(each_dies_once, tmp_path), range(MAX_RETRIES + 1), TWO))
    assert [task.result for task in outcomes] == list(range(MAX_RETRIES + 1))


@pytest.mark.slow
def test_a_crash_stops_the_other_worker_before_it_starts_another_task(tmp_path: Path) -> None:
    outcomes = sorted(run_all(partial(first_dies_once, tmp_path), range(3), TWO))
    assert [task.result for task in outcomes] == [0, 1, 2]
    starts = [len((tmp_path / f"{number} started").read_text().splitlines()) for number in range(3)]
    assert starts == [2, 2, 1]


@pytest.mark.slow
@pytest.mark.torture
def test_a_task_that_always_crashes_is_given_up_and_all_others_complete() -> None:
    outcomes = sorted(run_all(one_dies, range(3), TWO))
    assert [task.result for task in outcomes] == [0, None, 2]
    assert [task.number for task in outcomes if task.error] == [1]
    assert "crashed on every attempt (the last one without other tasks)" in str(outcomes[1].error)


@pytest.mark.parametrize("config", [ParallelConfig(), TWO])
def test_other_exceptions_are_raised(config: ParallelConfig) -> None:
    with pytest.raises(ZeroDivisionError):
        list(run_all(breaks, range(2), config))


@pytest.mark.slow
def test_workers_exit_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom inandout.parallel import ParallelConfig, run_all\n"
        "from tests.test_parallel import sleeps\n"
        "if __name__ == '__main__':\n    list(run_all(sleeps, [sys.argv[1]] * 2, ParallelConfig(workers=2)))\n"
    )
    main = tmp_path / "main.py"
    main.write_text(script)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    parent = subprocess.Popen([sys.executable, str(main), str(tmp_path)], env=environment)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("*.pid"))) < 2:
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = [psutil.Process(int(path.stem)) for path in tmp_path.glob("*.pid")]
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


def sleeps(folder: str) -> None:
    (Path(folder) / f"{os.getpid()}.pid").touch()
    time.sleep(300)


def test_workers_and_cluster_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="give workers or cluster"):
        ParallelConfig(workers=2, cluster="auto")


def test_an_unreachable_cluster_is_an_input_error() -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="no Ray cluster answers"):
        list(run_all(square, range(2), ParallelConfig(cluster="127.0.0.1:1")))


def waits(folder: Path, number: int) -> int:
    with (folder / f"{number}.txt").open("a") as file:
        file.write("started\n")
    time.sleep(2)
    return number


@pytest.mark.slow
@pytest.mark.torture
def test_tasks_of_a_lost_node_are_retried_on_another(cluster: Any, tmp_path: Path) -> None:
    second = cluster.add_node(num_cpus=1)
    tasks = run_all(partial(waits, tmp_path), range(6), ParallelConfig(cluster=cluster.address))
    outcomes = [next(tasks), next(tasks)]
    cluster.remove_node(second)
    outcomes += list(tasks)
    assert sorted(task.result for task in outcomes) == list(range(6)), "every task ends once"
    assert not any(task.error for task in outcomes)


@pytest.mark.slow
@pytest.mark.torture
def test_a_cluster_gives_up_a_task_that_always_crashes_and_raises_other_exceptions(cluster: Any) -> None:
    config = ParallelConfig(cluster=cluster.address)
    outcomes = sorted(run_all(one_dies, range(3), config))
    assert [task.result for task in outcomes] == [0, None, 2]
    assert "crashed on every attempt (WorkerCrashedError: " in str(outcomes[1].error)
    with pytest.raises(ZeroDivisionError):
        list(run_all(breaks, range(2), config))
