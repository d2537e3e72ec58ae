"""Cells of a comparison: classifiers that differ in shot, source of synthetic positives, `n_aug`, seed and fold."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Literal, NamedTuple

from inandout.classifier.config import NetworkConfig
from inandout.data.config import Shot
from inandout.stages.classify.config import ClassifyConfig, NearestConfig

SHOTS: tuple[Shot, ...] = ("zero", "few", "full")
REMARKS = "remarks.txt"
"""Artifact of a comparison: remarks about its seeds and pools, one per line."""
ROWS = "rows.json"
"""Artifact of a comparison: finished cells, in the format of `inandout.reporting.tables.pack`."""

Repeated = Literal["all", "training"]
"""What further seeds repeat: everything (split, real defects of few shot, pools, training), or the training alone."""
Kind = Literal["mix", "none", "none-steps", "nearest", "two-stage"]
"""How a row is computed. mix: a classifier with synthetic positives; the others: see `SOURCES`."""


class Source(NamedTuple):
    """A source of synthetic positives, or a control."""

    title: str
    """Name in tables."""
    ddpm_ratio: float = 0.0
    diffusion: Literal["ddpm", "inpaint", "diag"] = "ddpm"
    kind: Kind = "mix"
    pool: str = ""
    """Folder or run id of an existing pool; empty = generate it."""


SOURCES = {
    "none": Source("none", kind="none"),
    "memseg": Source("MemSeg"),
    "ddpm": Source("DDPM", 1.0),
    "inout": Source("In&Out", 0.5),
    "inpaint": Source("inpainting", 1.0, "inpaint"),
    "inout-inpaint": Source("In&Out, inpainting", 0.5, "inpaint"),
    "diag": Source("DIAG", 1.0, "diag"),
    "two-stage": Source("MemSeg, then DDPM", 1.0, kind="two-stage"),
    "none-steps": Source("none, equal steps", kind="none-steps"),
    "nearest": Source("nearest neighbour", kind="nearest"),
}
"""Sources, then controls: none-steps trains without synthetic positives for as many steps as with `n_aug` of them;
nearest never sees a defect (`inandout.stages.classify.nearest`)."""

SYNTHESES = ("none", "memseg", "ddpm", "inout", "inpaint", "inout-inpaint")
"""The paper's sources, and inpainting."""
CONTROLS = {SOURCES[name].title for name in ("none", "none-steps", "nearest")}
"""Titles of the rows without synthetic positives."""


class Cell(NamedTuple):
    """A classifier, or the nearest-neighbour baseline, and its place in tables."""

    source: str
    """Title of its source."""
    config: ClassifyConfig
    n_aug: int
    """Number of synthetic positives in tables; for none-steps, of the classifier with as many steps."""
    kind: Kind = "mix"
    first: ClassifyConfig | None = None
    """Classifier that the training continues."""
    on_curve: bool = False
    """Whether it is a point of the learning curve over the number of real defects."""

    def name(self) -> str:
        """Return the name of the cell in progress messages."""
        config = self.config
        shot = f"{config.scenario.shot}{f' n_shot={config.scenario.n_shot}' if self.on_curve else ''}"
        fold = f" fold={config.data.fold}" if config.data.fold else ""
        return f"shot={shot} source={self.source} n_aug={self.n_aug} seed={config.own_seed()}{fold}"

    def nearest(self) -> NearestConfig:
        """Return the configuration of the baseline, which does not depend on the shot."""
        config = self.config
        network = NetworkConfig(backbone=config.backbone.backbone, weights=config.backbone.weights)
        return NearestConfig(
            data=config.data, geometry=config.geometry, network=network, device=config.hardware.device,
            val_fpr=config.val_fpr, seed=config.seed, fresh=config.fresh,
        )  # fmt: skip


def parse_pools(text: str) -> dict[str, Source]:
    """Parse "NAME=FOLDER,..." into sources by name.

    Raises:
        ValueError: an entry has another form, or a name repeats or is that of a known source.
    """
    pools: dict[str, Source] = {}
    taken = {*SOURCES, *(source.title for source in SOURCES.values())}
    for entry in text.split(",") if text else []:
        name, equals, where = (part.strip() for part in entry.partition("="))
        if not (name and equals and where):
            raise ValueError(f"{entry!r} does not have the form NAME=FOLDER; give NAME=FOLDER,NAME=FOLDER")
        if name in pools or name in taken:
            raise ValueError(f"the name {name!r} is in use; give another name")
        pools[name] = Source(name, 1.0, pool=where)
    return pools


def build_cells(
    shots: Sequence[Shot],
    sources: Sequence[str],
    n_augs: Sequence[int],
    seeds: Sequence[int],
    shared: ClassifyConfig,
    *,
    pools: Mapping[str, Source] | None = None,
    folds: int = 0,
    curve: Sequence[int] = (),
    repeat: Repeated = "all",
) -> Iterator[Cell]:
    """Yield every valid combination.

    Zero shots without synthetic positives leave nothing to train on, so `none` and `none-steps` start at few shots.

    Args:
        shots: items of `SHOTS`.
        sources: keys of `SOURCES`.
        n_augs: numbers of synthetic positives.
        seeds: repetitions, see `repeat`.
        shared: all other options.
        pools: existing pools, as further sources.
        folds: number of folds, each the test part once; 0 = the split of the dataset.
        curve: numbers of real positives, of all kinds together, of the learning curve.
        repeat: all: a seed determines everything from the validation split to the order of images; training: all
            seeds use the split, the real defects and the pools of the first, and determine initial weights and order
            of images only.
    """
    chosen = [*(SOURCES[name] for name in sources), *(pools or {}).values()]
    parts = [f"{number}/{folds}" for number in range(1, folds + 1)] or [shared.data.fold]
    repeats = [{**_seeds(seed, seeds, repeat), "fold": fold} for seed, fold in product(seeds, parts)]
    for shot, source in product(shots, chosen):
        for n_aug in [0] if source.kind in ("none", "nearest") else n_augs:
            if (n_aug == 0 and source.kind not in ("none", "nearest")) or (shot == "zero" and _needs_defects(source)):
                continue
            for varied in repeats:
                yield _cell(source, n_aug, shared.with_options(shot=shot, **varied))
    for n_shot, varied in product(curve, repeats):
        config = shared.with_options(shot="few", n_shot=n_shot, each_kind=False, n_aug=0, ddpm_ratio=0.0, **varied)
        yield Cell(SOURCES["none"].title, config.resolved(), 0, "none", on_curve=True)


def _seeds(seed: int, seeds: Sequence[int], repeat: Repeated) -> dict[str, int]:
    """Return the options that set the seed; the first seed has the same options, and so the same run, either way."""
    return {"seed": seed} if repeat == "all" or seed == seeds[0] else {"seed": seeds[0], "training_seed": seed}


def _needs_defects(source: Source) -> bool:
    return source.kind in ("none", "none-steps")


def _cell(source: Source, n_aug: int, shared: ClassifyConfig) -> Cell:
    without = shared.with_options(n_aug=0, ddpm_ratio=0.0).resolved()
    if source.kind in ("none", "nearest", "none-steps"):
        return Cell(source.title, without, n_aug, source.kind)
    mixed = shared.with_options(
        n_aug=n_aug, ddpm_ratio=source.ddpm_ratio, diffusion=source.diffusion, ddpm_pool=source.pool
    ).resolved()
    if source.kind == "mix":
        return Cell(source.title, mixed, n_aug)
    half = max(mixed.fit.epochs // 2, 1)
    first = mixed.with_options(ddpm_ratio=0.0, epochs=half, distances=False).resolved()
    return Cell(
        source.title, mixed.with_options(epochs=max(mixed.fit.epochs - half, 1)), n_aug, "two-stage", first
    )  # fmt: skip
