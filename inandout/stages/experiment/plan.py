"""The plan of an experiment: every result that it needs, what each is made from, and which are missing.

A dry run prices the plan, an execution works through it. Both take what a classifier needs from `made_pools`.
"""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from inandout.data.prepare import CheckedData
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.synthetic import diffusion_fingerprint, made_pools, made_source
from inandout.stages.classify.train import classify_fingerprint
from inandout.stages.experiment.cells import Cell
from inandout.stages.finetune import FinetuneConfig, finetune_fingerprint
from inandout.stages.pools.augment import MemSegPoolConfig, memseg_fingerprint
from inandout.stages.pools.negatives import RoundTripConfig, good_fingerprint, round_trip_fingerprint
from inandout.stages.pools.text2img import DdpmPoolConfig, finetune_config
from inandout.tracking.runs import find_finished

PoolConfigs = MemSegPoolConfig | DdpmPoolConfig
Config = ClassifyConfig | PoolConfigs | RoundTripConfig | FinetuneConfig
Wanted = TypeVar("Wanted", bound=Config, covariant=True)


class Task(NamedTuple, Generic[Wanted]):
    """A result of one stage: a classifier, a pool or an adapter."""

    stage: str
    config: Wanted
    identity: str
    """Fingerprint of the run that holds the result."""
    needs: tuple["Task[Config]", ...] = ()
    """What must be there to make it, in the order in which it is made."""

    def is_missing(self) -> bool:
        """Whether no finished run holds the result, or a fresh one is asked for."""
        return self.config.fresh or find_finished(self.identity) is None


class Plan(NamedTuple):
    """What an experiment makes."""

    data: CheckedData
    """Its data set, read once."""
    cells: Sequence[Cell]
    goals: Sequence[Task[Config]]
    """What it shows: the classifier of every cell, or pools."""

    def missing(self) -> list[Task[Config]]:
        """Every task that is still to be done, once, after what it needs. What a finished task needs is not missing."""
        found: dict[str, Task[Config]] = {}
        for goal in self.goals:
            _add_missing(goal, found)
        return list(found.values())


def _add_missing(task: Task[Config], found: dict[str, Task[Config]]) -> None:
    if task.identity not in found and task.is_missing():
        for need in task.needs:
            _add_missing(need, found)
        found[task.identity] = task


def plan_cells(cells: Sequence[Cell], data: CheckedData) -> Plan:
    """Train and measure every cell."""
    return Plan(data, cells, [training(cell.config, data) for cell in cells])


def training(config: ClassifyConfig, data: CheckedData) -> Task[ClassifyConfig]:
    """A classifier; no pool is given to it."""
    needs = (*positive_pools(config, data), *_negative_pools(config, data))
    return Task("classify", config, classify_fingerprint(config, data), needs)


def positive_pools(config: ClassifyConfig, data: CheckedData) -> tuple[Task[PoolConfigs], ...]:
    """The pools of synthetic positives that a classifier is trained with: MemSeg first, then diffusion."""
    made = made_pools(config)
    pools: list[Task[PoolConfigs]] = []
    if made.memseg:
        key = memseg_fingerprint(made.memseg, data.split(made.memseg.data, made.memseg.seed))
        pools.append(Task("augment", made.memseg, key))
    if made.diffusion:
        key = diffusion_fingerprint(made.diffusion, data)
        pools.append(Task("augment", made.diffusion, key, (_finetuning(made.diffusion, data),)))
    return tuple(pools)


def _negative_pools(config: ClassifyConfig, data: CheckedData) -> tuple[Task[Config], ...]:
    made = made_pools(config)
    if made.good:
        key = good_fingerprint(made.good, data.take_shot(made.good.data, made.good.scenario, made.good.seed))
        return (Task("negatives", made.good, key, (_finetuning(made.good, data),)),)
    if made.round_trip and made.diffusion:
        source = made_source(made.diffusion, data)
        samples = data.split(made.round_trip.data, made.round_trip.seed)
        return (Task("negatives", made.round_trip, round_trip_fingerprint(made.round_trip, samples, source)),)
    return ()


def _finetuning(pool: DdpmPoolConfig, data: CheckedData) -> Task[FinetuneConfig]:
    config = finetune_config(pool)
    samples = data.take_shot(config.data, config.scenario, config.seed)
    return Task("finetune", config, finetune_fingerprint(config, samples))
