"""Pieces of work in turn, in processes and on a cluster: each once, killed ones again, errors apart."""

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

TWO = ParallelConfig(workers=2)


def square(number: int) -> int:
    if number == 3:
        raise InputError("3 cannot be done")
    return number**2


def who(number: int) -> tuple[int, int]:
    return os.getpid(), torch.get_num_threads()


def note(folder: Path, what: str) -> list[str]:
    """Add a line to a file; all its lines."""
    with (folder / what).open("a") as file:
        file.write("once\n")
    return (folder / what).read_text().splitlines()


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.05)


def each_dies_once(folder: Path, number: int) -> int:
    """But for the first; each when the one before it has ended."""
    if number:
        wait_for(folder / f"{number - 1} ended")
        if len(note(folder, f"{number} reached")) == 1:
            time.sleep(0.5)  # or that one might not have been heard of
            os.kill(os.getpid(), signal.SIGKILL)
    note(folder, f"{number} ended")
    return number


def first_dies_once(folder: Path, number: int) -> int:
    """When the second has begun, which does not end before."""
    begun = note(folder, f"{number} begun")
    if number == 0:
        wait_for(folder / "1 begun")
        if len(begun) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        note(folder, "0 ended")
    wait_for(folder / "0 ended")
    return number


def one_dies(number: int) -> int:
    """Always, and before another has ended."""
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(2)
    return number


def breaks(number: int) -> int:
    raise ZeroDivisionError(number)


@pytest.mark.parametrize("config", [ParallelConfig(), TWO])
def test_every_piece_is_done_and_an_error_ends_its_piece_alone(config: ParallelConfig) -> None:
    ended = sorted(run_all(square, range(5), config))
    assert [one.result for one in ended] == [0, 1, 4, None, 16]
    assert [str(one.error) for one in ended if one.error] == ["3 cannot be done"]


def test_in_turn_means_in_this_process() -> None:
    assert {one.result[0] for one in run_all(who, range(2), ParallelConfig())} == {os.getpid()}


@pytest.mark.slow
def test_workers_are_other_processes_that_share_the_cores() -> None:
    seen = [one.result for one in run_all(who, range(4), TWO)]
    assert os.getpid() not in {process for process, _ in seen}
    assert {threads for _, threads in seen} == {max((os.cpu_count() or 1) // 2, 1)}


@pytest.mark.slow
def test_what_killed_workers_were_at_is_begun_again_however_many_they_are(tmp_path: Path) -> None:
    ended = sorted(run_all(partial(each_dies_once, tmp_path), range(MAX_RETRIES + 1), TWO))
    assert [one.result for one in ended] == list(range(MAX_RETRIES + 1))


@pytest.mark.slow
def test_what_was_at_work_beside_a_killed_worker_ends_and_begins_nothing_else(tmp_path: Path) -> None:
    ended = sorted(run_all(partial(first_dies_once, tmp_path), range(3), TWO))
    assert [one.result for one in ended] == [0, 1, 2]
    begun = [len((tmp_path / f"{number} begun").read_text().splitlines()) for number in range(3)]
    assert begun == [2, 2, 1]


@pytest.mark.slow
def test_a_piece_that_always_kills_its_worker_is_given_up_and_all_others_are_done() -> None:
    ended = sorted(run_all(one_dies, range(3), TWO))
    assert [one.result for one in ended] == [0, None, 2]
    assert [one.number for one in ended if one.error] == [1]
    assert "killed each time that it was begun (at last with no other at work)" in str(ended[1].error)


@pytest.mark.parametrize("config", [ParallelConfig(), TWO])
def test_a_fault_of_the_code_is_not_taken_for_a_result(config: ParallelConfig) -> None:
    with pytest.raises(ZeroDivisionError):
        list(run_all(breaks, range(2), config))


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom inandout.parallel import EngineConfig, run_all\n"
        "from tests.test_parallel import sleeps\n"
        "if __name__ == '__main__':\n    list(run_all(sleeps, [sys.argv[1]] * 2, EngineConfig(workers=2)))\n"
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


def test_a_cluster_that_is_not_there_is_one_sentence() -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="no Ray cluster answers there"):
        list(run_all(square, range(2), ParallelConfig(cluster="127.0.0.1:1")))


def waits(folder: Path, number: int) -> int:
    with (folder / f"{number}.txt").open("a") as file:
        file.write("begun\n")
    time.sleep(2)
    return number


@pytest.mark.slow
def test_on_a_cluster_what_a_lost_machine_was_at_is_done_by_another(cluster: Any, tmp_path: Path) -> None:
    second = cluster.add_node(num_cpus=1)
    pieces = run_all(partial(waits, tmp_path), range(6), ParallelConfig(cluster=cluster.address))
    ended = [next(pieces), next(pieces)]
    cluster.remove_node(second)
    ended += list(pieces)
    assert sorted(one.result for one in ended) == list(range(6)), "every piece ends once"
    assert not any(one.error for one in ended)


@pytest.mark.slow
def test_on_a_cluster_a_piece_that_always_is_killed_is_given_up_and_a_fault_of_the_code_ends_all(cluster: Any) -> None:
    config = ParallelConfig(cluster=cluster.address)
    ended = sorted(run_all(one_dies, range(3), config))
    assert [one.result for one in ended] == [0, None, 2]
    assert "killed each time that it was begun (WorkerCrashedError: " in str(ended[1].error)
    with pytest.raises(ZeroDivisionError):
        list(run_all(breaks, range(2), config))
