"""Run independent tasks sequentially, in worker processes of this machine, or on a Ray cluster."""

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

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from inandout.errors import InputError, brief
from inandout.processes import allowed_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_RETRIES = 3
"""Worker crashes in a row, with no finished task between them, before tasks are isolated."""

MAX_PROCESSES = 61 if sys.platform == "win32" else 256
"""Limit of ProcessPoolExecutor on Windows."""


class ParallelConfig(BaseModel):
    """Where independent tasks run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(
        1, ge=1, le=256, description="worker processes on this machine; they share its cores, and take its GPUs in turn"
    )
    cluster: Annotated[str, StringConstraints(strip_whitespace=True)] = Field(
        "",
        description="address of a Ray cluster (host:6379 or auto) with a shared file system; empty = this machine",
    )

    @model_validator(mode="after")
    def _excludes_workers_with_cluster(self) -> "ParallelConfig":
        if self.cluster and self.workers > 1:
            raise ValueError(f"workers = {self.workers}: a cluster sets its own number; give workers or cluster")
        return self


class TaskResult(NamedTuple):
    """The outcome of one task: a result, or the `InputError` that ended it."""

    number: int
    """Index of the task's item."""
    result: Any
    error: InputError | None


def run_all(work: Callable[[Item], Result], items: Sequence[Item], config: ParallelConfig) -> Iterator[TaskResult]:
    """Call `work` on every item and yield the results in order of completion.

    An `InputError` ends only its own task; any other exception ends all tasks. A task whose process or machine was
    killed is retried, so `work` must be safe to repeat. A task that crashes on every attempt ends with an
    `InputError`.

    Args:
        work: picklable function with picklable items and results, unless tasks run sequentially.
        items: independent of each other.
        config: with one worker and no cluster, tasks run sequentially in this process.

    Raises:
        InputError: the cluster cannot be reached.
    """
    if config.cluster:
        return _on_cluster(work, items, config.cluster)
    if config.workers == 1 or len(items) < 2:
        return (TaskResult(number, *run_task(work, item)) for number, item in enumerate(items))
    return _in_processes(partial(_run_task_or_exit, work), items, config.workers)


def run_task(work: Callable[[Item], Result], item: Item) -> tuple[Result | None, InputError | None]:
    """Return the result of `work(item)`, or the `InputError` it raised."""
    try:
        return work(item), None
    except InputError as error:
        return None, error


def _run_task_or_exit(work: Callable[[Item], Result], item: Item) -> tuple[Result | None, InputError | None]:
    """Run a task, and exit on SIGTERM; the executor would catch SystemExit and start the next task."""
    try:
        return run_task(work, item)
    except SystemExit:
        os._exit(143)


def _in_processes(work: Callable[[Item], Any], items: Sequence[Item], workers: int) -> Iterator[TaskResult]:
    """Run tasks in a process pool. A killed worker breaks the executor, so unfinished tasks move to a new one.

    After `MAX_RETRIES` crashes without progress, one of the first `workers` tasks must be the cause: run each of them
    alone, and give up the one that crashes again.
    """
    pending, crashes = dict(enumerate(items)), 0
    while pending:
        before = len(pending)
        yield from _in_executor(work, pending, workers)
        if pending:
            print("a worker process was killed; restarting its unfinished tasks", file=sys.stderr)
        crashes = crashes + 1 if len(pending) == before else 1
        if crashes == MAX_RETRIES:
            for number in list(pending)[:workers]:
                isolated = {number: pending.pop(number)}
                yield from _in_executor(work, isolated, 1)
                if isolated:
                    yield TaskResult(number, None, _crash_error("the last one without other tasks"))
            crashes = 0


def _in_executor(work: Callable[[Item], Any], pending: dict[int, Item], workers: int) -> Iterator[TaskResult]:
    """Run all pending tasks and remove the finished ones, until none is pending or a worker is killed."""
    context = multiprocessing.get_context("spawn")
    threads = max(allowed_cores() // workers, 1)
    started = context.Value("i", 0)
    executor = ProcessPoolExecutor(
        min(workers, len(pending), MAX_PROCESSES), context, initializer=_init_worker, initargs=(threads, started)
    )
    try:
        futures = {executor.submit(work, item): number for number, item in pending.items()}
        for future in as_completed(futures):
            task = TaskResult(futures[future], *future.result())
            del pending[task.number]
            yield task
    except BrokenProcessPool:
        pass  # the caller retries the pending tasks
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _crash_error(detail: str) -> InputError:
    return InputError(
        f"the worker crashed on every attempt ({detail}), possibly out of memory; reduce batch_size or workers"
    )


def _init_worker(threads: int, started: Any) -> None:
    """Set the number of threads and the GPU, and make the worker exit cleanly on SIGTERM and when its parent dies."""
    import torch  # takes seconds; the configuration of workers does not need it

    torch.set_num_threads(threads)
    take_gpu(started)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def take_gpu(started: Any) -> None:
    """Make the next GPU the current one of this process, which the option device=cuda means.

    Args:
        started: counts the processes that called this, a `multiprocessing.Value`.
    """
    import torch

    with started.get_lock():
        number, started.value = started.value, started.value + 1
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _on_cluster(work: Callable[[Item], Result], items: Sequence[Item], address: str) -> Iterator[TaskResult]:
    """Run tasks on Ray, each with one core and, if the cluster has GPUs, one GPU; Ray retries tasks of lost nodes."""
    if find_spec("ray") is None:
        raise InputError(f"cluster = {address}: needs Ray; pip install -e '.[cluster]' on every machine")
    _check_reachable(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_task_oom_retries", str(MAX_RETRIES - 1))  # unlimited by default
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
    """Return the output of `run_task`, or an error if Ray gave up retrying."""
    try:
        result: tuple[Any, InputError | None] = ray.get(ready)
    except ray.exceptions.RayTaskError:  # raised by the task itself: a bug
        raise
    except ray.exceptions.RayError as error:
        return None, _crash_error(brief(error))
    return result


_NO_CLUSTER = "no Ray cluster answers; start one with `ray start --head --port=6379`"


def _check_reachable(address: str) -> None:
    """Raise an InputError if nothing listens at the address; Ray itself would retry for five minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise InputError(f"cluster = {address}: {_NO_CLUSTER} ({error})") from error
