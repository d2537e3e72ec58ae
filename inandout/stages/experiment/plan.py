"""Plan of an experiment: its results, their dependencies, and which of them are missing.

A dry run estimates the cost of the plan. The pools of a classifier come from `required_pools`, as in `classify`.
"""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from inandout.data.prepare import CheckedData
from inandout.stages.classify.config import ClassifyConfig, NearestConfig
from inandout.stages.classify.nearest import nearest_fingerprint
from inandout.stages.classify.synthetic import diffusion_fingerprint, pool_source_identity, required_pools
from inandout.stages.classify.train import classify_fingerprint
from inandout.stages.config import FinetuneConfig
from inandout.stages.experiment.grid import Cell
from inandout.stages.experiment.missing import training_steps
from inandout.stages.finetune import finetune_fingerprint
from inandout.stages.pools.augment import memseg_fingerprint
from inandout.stages.pools.config import DdpmPoolConfig, MemSegPoolConfig, RoundTripConfig, finetune_config
from inandout.stages.pools.negatives import good_fingerprint, round_trip_fingerprint
from inandout.tracking.runs import find_finished

PoolConfigs = MemSegPoolConfig | DdpmPoolConfig
Config = ClassifyConfig | NearestConfig | PoolConfigs | RoundTripConfig | FinetuneConfig
Wanted = TypeVar("Wanted", bound=Config, covariant=True)


class Task(NamedTuple, Generic[Wanted]):
    """A result of one stage: a classifier, a pool or an adapter."""

    stage: str
    config: Wanted
    identity: str
    """Fingerprint of the run that holds the result."""
    needs: tuple["Task[Config]", ...] = ()
    """Dependencies, in order of execution."""

    def is_missing(self) -> bool:
        """Return whether no finished run holds the result, or `fresh` is set."""
        return self.config.fresh or find_finished(self.identity) is None


class Plan(NamedTuple):
    """Tasks of an experiment."""

    data: CheckedData
    """The dataset."""
    cells: Sequence[Cell]
    goals: Sequence[Task[Config]]
    """Results that the experiment shows: the classifier of every cell, or pools."""

    def missing(self) -> list[Task[Config]]:
        """Return missing tasks, dependencies first. Dependencies of finished tasks are not missing."""
        missing: dict[str, Task[Config]] = {}
        for goal in self.goals:
            add_missing(goal, missing)
        return list(missing.values())


def add_missing(task: Task[Config], missing: dict[str, Task[Config]]) -> None:
    """Add a task to `missing` if no finished run holds its result, after its missing dependencies."""
    if task.identity not in missing and task.is_missing():
        for need in task.needs:
            add_missing(need, missing)
        missing[task.identity] = task


def plan_cells(cells: Sequence[Cell], data: CheckedData) -> Plan:
    """Return the plan that trains and evaluates every cell."""
    return Plan(data, cells, [_cell_task(cell, data) for cell in cells])


def equal_steps(cells: Sequence[Cell], data: CheckedData) -> list[Cell]:
    """Return the cells; those of `none-steps` with the epochs that have as many steps as with `n_aug` synthetic images.

    The number of steps is rounded up to whole epochs.
    """
    return [_with_equal_steps(cell, data) if cell.kind == "none-steps" else cell for cell in cells]


def _with_equal_steps(cell: Cell, data: CheckedData) -> Cell:
    epochs = cell.config.fit.epochs
    wanted = training_steps(cell.config.with_options(n_aug=cell.n_aug, ddpm_ratio=1.0), data)
    per_epoch = training_steps(cell.config, data) // epochs
    return cell._replace(config=cell.config.with_options(epochs=min(-(-wanted // per_epoch), 10_000)))


def _cell_task(cell: Cell, data: CheckedData) -> Task[Config]:
    if cell.kind == "nearest":
        return Task("nearest", cell.nearest(), nearest_fingerprint(cell.nearest(), data))
    if cell.first is None:
        return _training(cell.config, data)
    first = _training(cell.first, data)
    run = None if cell.first.fresh else find_finished(first.identity)
    if run is not None:
        return _training(cell.config.with_options(start=run.info.run_id), data)
    second = _training(cell.config, data)  # its fingerprint includes the weights of the first, which do not exist yet
    return second._replace(identity=f"{second.identity} after {first.identity}", needs=(first, *second.needs))


def _training(config: ClassifyConfig, data: CheckedData) -> Task[ClassifyConfig]:
    """Return the task of a classifier with the pools that it needs."""
    needs = (*positive_pools(config, data), *_negative_pools(config, data))
    return Task("classify", config, classify_fingerprint(config, data), needs)


def positive_pools(config: ClassifyConfig, data: CheckedData) -> tuple[Task[PoolConfigs], ...]:
    """Return the tasks of the pools of synthetic positives: MemSeg first, then diffusion."""
    required = required_pools(config)
    pools: list[Task[PoolConfigs]] = []
    if required.memseg:
        key = memseg_fingerprint(required.memseg, data.split(required.memseg.data, required.memseg.seed))
        pools.append(Task("augment", required.memseg, key))
    if required.diffusion:
        key = diffusion_fingerprint(required.diffusion, data)
        needs = () if required.diffusion.drawing.adapter else (_finetuning(required.diffusion, data),)
        pools.append(Task("augment", required.diffusion, key, needs))
    return tuple(pools)


def _negative_pools(config: ClassifyConfig, data: CheckedData) -> tuple[Task[Config], ...]:
    required = required_pools(config)
    if required.good:
        key = good_fingerprint(
            required.good, data.take_shot(required.good.data, required.good.scenario, required.good.seed)
        )
        return (Task("negatives", required.good, key, (_finetuning(required.good, data),)),)
    if required.round_trip and required.diffusion:
        source = pool_source_identity(required.diffusion, data)
        samples = data.split(required.round_trip.data, required.round_trip.seed)
        return (Task("negatives", required.round_trip, round_trip_fingerprint(required.round_trip, samples, source)),)
    return ()


def _finetuning(pool: DdpmPoolConfig, data: CheckedData) -> Task[FinetuneConfig]:
    config = finetune_config(pool)
    samples = data.take_shot(config.data, config.scenario, config.seed)
    return Task("finetune", config, finetune_fingerprint(config, samples))
