"""Train and evaluate the cells of a comparison."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import mlflow
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from tqdm import tqdm

from inandout.data.prepare import CheckedData
from inandout.errors import InputError
from inandout.parallel import ParallelConfig, run_all
from inandout.reporting.tables import Row, pack
from inandout.stages.classify.nearest import nearest
from inandout.stages.classify.scores import Result
from inandout.stages.classify.train import classify, refuse_impossible
from inandout.stages.experiment.cost import cheapest_first
from inandout.stages.experiment.grid import REMARKS, ROWS, Cell
from inandout.stages.experiment.plan import plan_cells
from inandout.stages.pools.pool import open_pool
from inandout.tracking.store import RunLocation, nested_under, run_location


def refuse_impossible_cells(cells: Sequence[Cell], data: CheckedData) -> None:
    """Raise the error that training would raise for a cell, without training.

    Raises:
        InputError: `cells` is empty, or a cell cannot be trained.
    """
    if not cells:
        raise InputError("nothing to compare: zero shots need n_aug of 1 or more")
    for cell in cells:
        if cell.kind != "nearest":
            refuse_impossible(cell.config, data)


def list_remarks(cells: Sequence[Cell]) -> list[str]:
    """Return a remark on seeds that repeat the training alone, and one for each pool without known sources."""
    remarks = []
    if len({cell.config.own_seed() for cell in cells}) > len({cell.config.seed for cell in cells}):
        remarks.append(
            f"All seeds use the split, the real defects of few shot and the pools of seed {cells[0].config.seed}. The "
            "intervals do not include the variance of choosing or generating them."
        )
    for source, pool in dict.fromkeys((cell.source, cell.config.ddpm_pool) for cell in cells if cell.config.ddpm_pool):
        samples = open_pool(pool).samples
        unknown = sum(not sample.sources for sample in samples)
        if unknown:
            remarks.append(
                f"{source}: {unknown} of {len(samples)} images have no record of their sources; near-duplicates of "
                "held-out images are refused, but whether the generator has seen test parts is not known"
            )
    return remarks


def measure_cells(cells: Sequence[Cell], data: CheckedData, parallel: ParallelConfig) -> list[Row]:
    """Train and evaluate every cell, or reuse its finished run; log finished cells to `rows.json` of the active run.

    `list_remarks` is logged as `remarks.txt`. The cells that take least time, with all that they need, run first.

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
    mlflow.log_text("\n".join(list_remarks(cells)), REMARKS)
    estimates = dict(cheapest_first(plan_cells(cells, data)))
    order = list(estimates)
    clock = _Clock(estimates, parallel)
    _say(f"[0/{len(cells)}] {clock.left()}".rstrip())
    tasks = run_all(work, [cells[number] for number in order], parallel)
    every = tqdm(tasks, "cells", total=len(cells), unit="cell", disable=None)
    for done, task in enumerate(every, start=1):
        number = order[task.number]
        cell = cells[number]
        clock.pending.discard(number)
        if task.error is not None:
            failures.append(f"{cell.name()}: {task.error}")
            _say(f"[{done}/{len(cells)}] failed: {failures[-1]}")
            continue
        config, result = cell.config, task.result
        n_shot = config.scenario.n_shot if cell.on_curve else 0
        repeated = any(row.run_id == result.run_id for row in rows.values())
        rows[number] = Row(
            config.scenario.shot, cell.source, cell.n_aug, config.own_seed(), result.run_id, result.metrics,
            config.data.fold, n_shot,
        )  # fmt: skip
        clock.add(number, None if repeated else _seconds_trained(result))
        ap = f"{cell.name()}: AP {result.metrics.get('ap', float('nan')):.3f}"
        _say(", ".join(part for part in (f"[{done}/{len(cells)}] {ap}", clock.left()) if part))
        mlflow.log_text(pack([rows[key] for key in sorted(rows)]), ROWS)
    if failures:
        raise InputError(
            f"{len(failures)} of {len(cells)} cells failed, the first with: {failures[0]}; run the same command to "
            "retry failed cells only"
        )
    return [rows[number] for number in sorted(rows)]


def _say(line: str) -> None:
    """Print a line above the progress bar, at once even to a file."""
    tqdm.write(line)
    sys.stdout.flush()


def _measure(location: RunLocation, data: CheckedData, cell: Cell) -> Result:
    with nested_under(location):
        if cell.kind == "nearest":
            return nearest(cell.nearest(), data)
        config = cell.config
        if cell.first:
            config = config.with_options(start=classify(cell.first, data).run_id)
        return classify(config, data)


def _seconds_trained(result: Result) -> float | None:
    """Return the seconds of a cell, image generation included; None if a finished run was reused."""
    trained = mlflow.get_run(result.run_id).data.tags.get(MLFLOW_PARENT_RUN_ID) == run_location().run_id
    return result.metrics["seconds"] if trained else None


class _Clock:
    """Estimate of the time left: estimated seconds of the pending cells, corrected by those of the trained ones."""

    def __init__(self, estimates: Mapping[int, float], parallel: ParallelConfig) -> None:
        self.pending = set(estimates)
        self._estimates, self._parallel = estimates, parallel
        self._estimated = self._trained = _WEIGHT * sum(estimates.values())
        self._actual, self._began = 0.0, time.monotonic()

    def add(self, number: int, seconds: float | None) -> None:
        """Take the seconds of a trained cell into account."""
        if seconds is not None:
            self._estimated += self._estimates[number]
            self._trained += seconds
            self._actual += seconds

    def left(self) -> str:
        """Return the time left, or "" if it is zero or unknown."""
        at_once: float = self._parallel.workers
        if self._parallel.cluster:  # the number of cells that a cluster trains at once follows from the trained ones
            at_once = self._actual / (time.monotonic() - self._began)
        estimate = sum(self._estimates[number] for number in self.pending)
        if not (estimate and at_once):
            return ""
        return f"about {tqdm.format_interval(estimate * self._trained / self._estimated / at_once)} left"


_WEIGHT = 0.2
"""The estimates count as much as this share of all cells having taken as long as estimated."""
