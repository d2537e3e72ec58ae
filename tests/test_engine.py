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

from inandout.engine import TRIES, EngineConfig, run_all
from inandout.errors import InputError

TWO = EngineConfig(workers=2)


def square(number: int) -> int:
    if number == 3:
        raise InputError("3 cannot be done")
    return number**2


def who(number: int) -> tuple[int, int]:
    return os.getpid(), torch.get_num_threads()


def dies_once(folder: Path, number: int) -> int:
    """Leaves a line each time it is begun."""
    begun = folder / f"{number}.txt"
    with begun.open("a") as file:
        file.write("begun\n")
    if number == 1 and len(begun.read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def dies(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def breaks(number: int) -> int:
    raise ZeroDivisionError(number)


@pytest.mark.parametrize("config", [EngineConfig(), TWO])
def test_every_piece_is_done_and_an_error_ends_its_piece_alone(config: EngineConfig) -> None:
    ended = sorted(run_all(square, range(5), config))
    assert [one.result for one in ended] == [0, 1, 4, None, 16]
    assert [str(one.error) for one in ended if one.error] == ["3 cannot be done"]


def test_in_turn_means_in_this_process() -> None:
    assert {one.result[0] for one in run_all(who, range(2), EngineConfig())} == {os.getpid()}


def test_workers_are_other_processes_that_share_the_cores() -> None:
    seen = [one.result for one in run_all(who, range(4), TWO)]
    assert os.getpid() not in {process for process, _ in seen}
    assert {threads for _, threads in seen} == {max((os.cpu_count() or 1) // 2, 1)}


def test_what_a_killed_worker_was_at_is_begun_again(tmp_path: Path) -> None:
    ended = sorted(run_all(partial(dies_once, tmp_path), range(4), TWO))
    assert [one.result for one in ended] == [0, 1, 2, 3]
    assert len((tmp_path / "1.txt").read_text().splitlines()) >= 2


def test_a_piece_that_always_kills_its_worker_is_given_up() -> None:
    with pytest.raises(InputError, match=f"killed {TRIES} times"):
        list(run_all(dies, range(2), TWO))


@pytest.mark.parametrize("config", [EngineConfig(), TWO])
def test_a_fault_of_the_code_is_not_taken_for_a_result(config: EngineConfig) -> None:
    with pytest.raises(ZeroDivisionError):
        list(run_all(breaks, range(2), config))


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom inandout.engine import EngineConfig, run_all\n"
        "from tests.test_engine import sleeps\n"
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
        EngineConfig(workers=2, cluster="auto")


def test_a_cluster_that_is_not_there_is_one_sentence() -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="no Ray cluster answers there"):
        list(run_all(square, range(2), EngineConfig(cluster="127.0.0.1:1")))


def waits(folder: Path, number: int) -> int:
    with (folder / f"{number}.txt").open("a") as file:
        file.write("begun\n")
    time.sleep(2)
    return number


def test_on_a_cluster_what_a_lost_machine_was_at_is_done_by_another(cluster: Any, tmp_path: Path) -> None:
    second = cluster.add_node(num_cpus=1)
    pieces = run_all(partial(waits, tmp_path), range(6), EngineConfig(cluster=cluster.address))
    ended = [next(pieces), next(pieces)]
    cluster.remove_node(second)
    ended += list(pieces)
    assert sorted(one.result for one in ended) == list(range(6)), "every piece ends once"
    assert not any(one.error for one in ended)
