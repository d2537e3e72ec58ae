"""Train and evaluate the cells of a comparison."""

import time
from collections.abc import Callable, Sequence
from functools import partial

import mlflow
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from tqdm import tqdm

from inandout.data.prepare import CheckedData
from inandout.errors import InputError
from inandout.parallel import ParallelConfig, run_all
from inandout.reporting.tables import Row, pack
from inandout.stages.classify.train import Result, classify, refuse_impossible
from inandout.stages.experiment.grid import ROWS, Cell
from inandout.tracking.store import RunLocation, nested_under, run_location


def refuse_impossible_cells(cells: Sequence[Cell], data: CheckedData) -> None:
    """Raise the error that training would raise for a cell, without training.

    Raises:
        InputError: `cells` is empty, or a cell cannot be trained.
    """
    if not cells:
        raise InputError("nothing to compare: zero shots need n_aug of 1 or more")
    for cell in cells:
        refuse_impossible(cell.config, data)


def measure_cells(cells: Sequence[Cell], data: CheckedData, parallel: ParallelConfig) -> list[Row]:
    """Train and evaluate every cell, or reuse its finished run; log finished cells to `rows.json` of the active run.

    Args:
        cells: cells of one dataset.
        data: the dataset.
        parallel: workers or cluster to train on.

    Raises:
        InputError: a cell failed; it is raised after all other cells have ended.
    """
    work: Callable[[Cell], Result] = partial(_measure, run_location(), data)
    rows: dict[int, Row] = {}
    failures: list[str] = []
    began, seconds = time.monotonic(), list[float]()
    every = tqdm(run_all(work, cells, parallel), "cells", total=len(cells), unit="cell", disable=None)
    for done, task in enumerate(every, start=1):
        cell = cells[task.number]
        if task.error is not None:
            failures.append(f"{cell.name()}: {task.error}")
            tqdm.write(f"[{done}/{len(cells)}] failed: {failures[-1]}")
            continue
        config, result = cell.config, task.result
        rows[task.number] = Row(
            config.scenario.shot, cell.source, config.mix.n_aug, config.seed, result.run_id, result.metrics
        )  # fmt: skip
        seconds += _seconds_trained(result)
        # The number of cells that a cluster trains at once follows from the finished ones.
        at_once = sum(seconds) / (time.monotonic() - began) if parallel.cluster else parallel.workers
        remaining = _time_left(seconds, len(cells) - done, at_once)
        tqdm.write(f"[{done}/{len(cells)}] {cell.name()}: AP {result.metrics.get('ap', float('nan')):.3f}{remaining}")
        mlflow.log_text(pack([rows[number] for number in sorted(rows)]), ROWS)
    if failures:
        raise InputError(
            f"{len(failures)} of {len(cells)} cells failed, the first with: {failures[0]}; run the same command to "
            "retry failed cells only"
        )
    return [rows[number] for number in sorted(rows)]


def _measure(location: RunLocation, data: CheckedData, cell: Cell) -> Result:
    with nested_under(location):
        return classify(cell.config, data)


def _seconds_trained(result: Result) -> list[float]:
    """Return the seconds of a cell, image generation included; empty if a finished run was reused."""
    trained = mlflow.get_run(result.run_id).data.tags.get(MLFLOW_PARENT_RUN_ID) == run_location().run_id
    return [result.metrics["seconds"]] if trained else []


def _time_left(seconds: Sequence[float], remaining: int, at_once: float) -> str:
    """Return the remaining time, assuming that remaining cells take the mean time of trained ones."""
    if not seconds or not remaining:
        return ""
    return f", about {tqdm.format_interval(sum(seconds) / len(seconds) * remaining / at_once)} left"
