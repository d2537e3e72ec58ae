"""Independent pieces of work, whatever they are: in turn, in processes of this machine, or on a Ray cluster."""

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any, NamedTuple, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from inandout.errors import InputError, brief

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_RETRIES = 3
"""Times in a row, without a piece that ended in between, that what pieces run in may be killed."""


class ParallelConfig(BaseModel):
    """Where independent pieces of work run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(1, ge=1, le=256, description="processes on this machine, which share its cores")
    cluster: Annotated[str, StringConstraints(strip_whitespace=True)] = Field(
        "", description="address of a Ray cluster (host:6379, or auto), whose machines see the same files; empty = here"
    )

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "ParallelConfig":
        if self.cluster and self.workers > 1:
            raise ValueError(f"workers = {self.workers}: a cluster decides itself how many; give workers or cluster")
        return self


class TaskResult(NamedTuple):
    """A piece of work that ended: with a result, or with an error of the user's, or given up."""

    number: int
    """Its place among the pieces."""
    result: Any
    error: InputError | None


def run_all(work: Callable[[Item], Result], items: Sequence[Item], config: ParallelConfig) -> Iterator[TaskResult]:
    """Do `work` for every item and give what came out, in the order in which it is ready.

    An `InputError` ends its piece alone; any other exception ends all. A piece whose process or machine was killed is
    begun again, so `work` must be safe to repeat; one that always is killed ends with an `InputError`, too.

    Args:
        work: can be pickled, as can items and results, unless it runs in turn.
        items: independent of each other.
        config: one worker and no cluster: in this process, in turn.

    Raises:
        InputError: there is no such cluster.
    """
    if config.cluster:
        return _on_cluster(work, items, config.cluster)
    if config.workers == 1 or len(items) < 2:
        return (TaskResult(number, *run_task(work, item)) for number, item in enumerate(items))
    return _in_processes(partial(_run_task_unless_told, work), items, config.workers)


def run_task(work: Callable[[Item], Result], item: Item) -> tuple[Result | None, InputError | None]:
    """The result, or the error of the user's."""
    try:
        return work(item), None
    except InputError as error:
        return None, error


def _run_task_unless_told(work: Callable[[Item], Result], item: Item) -> tuple[Result | None, InputError | None]:
    """As `run_task`; a process that is told to end does so, where its executor would have it take the next piece."""
    try:
        return run_task(work, item)
    except SystemExit:
        os._exit(143)


def _in_processes(work: Callable[[Item], Any], items: Sequence[Item], workers: int) -> Iterator[TaskResult]:
    """A killed process ends its whole executor, so what has not ended goes to a new one.

    After `MAX_RETRIES` of them in vain one of the pieces that are first in turn kills its process: so each of these is
    done alone, and given up if it is killed there, too.
    """
    left, in_vain = dict(enumerate(items)), 0
    while left:
        before = len(left)
        yield from _in_executor(work, left, workers)
        if left:
            print("a worker was killed; what had not ended is begun again", file=sys.stderr)
        in_vain = in_vain + 1 if len(left) == before else 1
        if in_vain == MAX_RETRIES:
            for number in list(left)[:workers]:
                alone = {number: left.pop(number)}
                yield from _in_executor(work, alone, 1)
                if alone:
                    yield TaskResult(number, None, _given_up("at last with no other at work"))
            in_vain = 0


def _in_executor(work: Callable[[Item], Any], left: dict[int, Item], workers: int) -> Iterator[TaskResult]:
    """Begin all that is left, and take out what ends, until nothing is left or a process is killed."""
    context = multiprocessing.get_context("spawn")
    threads = max((os.cpu_count() or 1) // workers, 1)
    executor = ProcessPoolExecutor(min(workers, len(left)), context, initializer=_begin, initargs=(threads,))
    try:
        futures = {executor.submit(work, item): number for number, item in left.items()}
        for future in as_completed(futures):
            task = TaskResult(futures[future], *future.result())
            del left[task.number]
            yield task
    except BrokenProcessPool:
        pass  # something is left
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _given_up(how: str) -> InputError:
    return InputError(
        f"what it ran in was killed each time that it was begun ({how}), perhaps for want of memory; free some, or ask "
        "for less, as with smaller batches"
    )


def _begin(threads: int) -> None:
    """Set up a process: its share of the cores; it ends, and closes what it has open, when it is told or left alone."""
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _on_cluster(work: Callable[[Item], Result], items: Sequence[Item], address: str) -> Iterator[TaskResult]:
    """Every piece has a core, and a GPU where there are some; Ray begins again what a lost machine was at."""
    if find_spec("ray") is None:
        raise InputError(f"cluster = {address}: needs Ray; pip install 'inandout[cluster]', on every machine")
    _refuse_silence(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_task_oom_retries", str(MAX_RETRIES - 1))  # without end by default
    ray: Any = import_module("ray")
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"cluster = {address}: {_NO_CLUSTER} ({brief(error)})") from error
    try:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=MAX_RETRIES - 1)(run_task)
        waiting = {remote.remote(work, item): number for number, item in enumerate(items)}
        while waiting:
            (ready, *_), _ = ray.wait(list(waiting))
            yield TaskResult(waiting.pop(ready), *_fetch(ray, ready))
    finally:
        ray.shutdown()


def _fetch(ray: Any, ready: Any) -> tuple[Any, InputError | None]:
    """What `run_task` gave, or an error where Ray has given up beginning it again."""
    try:
        result: tuple[Any, InputError | None] = ray.get(ready)
    except ray.exceptions.RayTaskError:  # of the work itself: a fault of the code
        raise
    except ray.exceptions.RayError as error:
        return None, _given_up(brief(error))
    return result


_NO_CLUSTER = "no Ray cluster answers there; start one with `ray start --head --port=6379`"


def _refuse_silence(address: str) -> None:
    """Where nothing listens, Ray itself would try for five minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise InputError(f"cluster = {address}: {_NO_CLUSTER} ({error})") from error
