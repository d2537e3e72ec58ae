"""Entry point `distance`: distances between synthetic and real defects in the features of a trained classifier."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import mlflow
import numpy as np
import numpy.typing as npt

from inandout.classifier.features import features
from inandout.classifier.pixels import load_pixels
from inandout.data.manifest import Sample, Split, digest, fingerprint
from inandout.errors import InputError
from inandout.evaluation.distances import FEWEST, KernelDistance, frechet_distance, kernel_distance
from inandout.fingerprints import Identity
from inandout.reporting.tables import aligned
from inandout.stages.analysis.config import DistanceConfig
from inandout.stages.classify.trained_classifier import TrainedClassifier
from inandout.stages.pools.pool import open_pool, refuse_unfit
from inandout.tracking.logging import describe_location, log_values
from inandout.tracking.runs import artifact_folder, find_run, run_stage
from inandout.tracking.store import connect

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float32]

REFERENCE = "real test positives"
NEGATIVES = "training negatives"
_REAL: dict[str, tuple[str, Split, int]] = {
    "val_positives": ("real validation positives", "val", 1),
    "train_positives": ("real training positives", "train", 1),
    "train_negatives": (NEGATIVES, "train", 0),
}
"""Metric key to name, split and label of real images that pools are compared with."""
_NOT_PLOTTED = {"val_positives", "train_positives"}
"""Groups that the figure omits; the test positives represent real defects."""
_LOOKS = {NEGATIVES: ("0.7", "o"), REFERENCE: ("tab:red", "o")}
"""Colour and marker; each pool has crosses of another colour."""


class Distances(NamedTuple):
    """Run id and table of distances; the run has the same values as metrics."""

    run_id: str
    table: str


class Group(NamedTuple):
    """A group of images."""

    key: str
    name: str
    samples: list[Sample]


class Row(NamedTuple):
    """Distances of a group to the reference."""

    group: Group
    kernel: KernelDistance
    frechet: float


def distance(config: DistanceConfig) -> Distances:
    """Measure distances of pools and real images to the real test positives; print and log a table and a figure.

    Features are those of a classifier with the same data, split and seed. All real images are used, including positives
    that the shot withheld. Validation positives are the lower reference for a pool, training negatives the upper one;
    the classifier may have memorised its training positives.
    """
    connect()
    trained = TrainedClassifier.open(config.model, "model")
    pools = _pools(config.pools, trained.data)
    inputs = {
        "data": fingerprint(trained.data), "model": digest(trained.weights),
        "pools": " ".join(fingerprint(p.samples) for p in pools),
    }  # fmt: skip
    identity = Identity("distance", __name__, config, inputs, ignored=("model", "pools"))
    name = f"distance of {len(pools)} pools, model {config.model[:8]}"
    run = run_stage(identity, name, trained.config.data.data, trained.data, lambda work: _measure(trained, pools))
    table = artifact_folder(run.info.run_id, "distance.md").read_text(encoding="utf-8")
    print(f"\n{table}\n\n{describe_location(run)}")
    return Distances(run.info.run_id, table)


def _pools(listed: str, real: Sequence[Sample]) -> list[Group]:
    """Read the listed pools; each must be valid for training with `real`."""
    names = [name.strip() for name in listed.split(",") if name.strip()]
    if not names:
        raise InputError("pools is empty; give run ids of augment or pool folders, separated by commas")
    pools = []
    for number, name in enumerate(names, start=1):
        samples = open_pool(name).samples
        if len(samples) < FEWEST:
            raise InputError(f"pools: {name} has {len(samples)} images; a comparison needs at least {FEWEST}")
        refuse_unfit(real, samples)
        pools.append(Group(f"pool_{number}", _name_of(name), samples))
    return pools


def _name_of(name: str) -> str:
    if Path(name).is_dir():
        return name
    return f"{find_run(name).info.run_name} ({name[:8]})"


def _measure(trained: TrainedClassifier, pools: Sequence[Group]) -> None:
    """Log table, metrics and figure."""
    reference = trained.rows("test", 1)
    if len(reference) < FEWEST:
        raise InputError(f"the test part has {len(reference)} positives; a distance needs at least {FEWEST}")
    found = [Group(key, name, trained.rows(split, label)) for key, (name, split, label) in _REAL.items()]
    groups = [*pools, *(group for group in found if len(group.samples) >= FEWEST)]
    few = [f"{group.name} ({len(group.samples)})" for group in found if len(group.samples) < FEWEST]
    n, seed = min(len(group.samples) for group in groups), trained.config.seed
    reference_features, *group_features = _features(trained, [reference, *(_draw(g.samples, n, seed) for g in groups)])
    rows = [
        Row(group, kernel_distance(each, reference_features, seed), frechet_distance(each, reference_features))
        for group, each in zip(groups, group_features, strict=True)
    ]
    _log(rows, n, len(reference), few)
    plotted = [
        (group.name, each) for group, each in zip(groups, group_features, strict=True) if group.key not in _NOT_PLOTTED
    ]
    mlflow.log_figure(feature_map(reference_features, plotted), "features.png")


def _draw(samples: Sequence[Sample], n: int, seed: int) -> list[Sample]:
    """Draw `n` samples, the same number for every group, because the bias of the Frechet distance depends on it."""
    return [samples[int(i)] for i in np.random.default_rng(seed).permutation(len(samples))[:n]]


def _features(trained: TrainedClassifier, groups: Sequence[Sequence[Sample]]) -> list[Floats]:
    """Return features (N, C) of each group, with the classifier's geometry."""
    net = trained.load_fastest()
    return [features(net, load_pixels([sample.image for sample in group], trained.geometry)) for group in groups]


def _log(rows: Sequence[Row], n: int, n_reference: int, few: Sequence[str]) -> None:
    mlflow.log_params({"n_compared": n, "n_reference": n_reference})
    log_values({f"kid_{row.group.key}": row.kernel.mean for row in rows})
    log_values({f"frechet_{row.group.key}": row.frechet for row in rows})
    title = f"Distance to {n_reference} {REFERENCE}, {n} images of each group:"
    notes = [f"Omitted, fewer than {FEWEST} images: {', '.join(few)}."] if few else []
    mlflow.log_text("\n\n".join([title, distance_table(rows), *notes]), "distance.md")


def distance_table(rows: Sequence[Row]) -> str:
    """Return a table with one line per group; the spread of the kernel distance is in brackets."""
    lines = [["images", "number", "kernel distance (KID)", "Frechet distance"]]
    for row in rows:
        kernel = f"{row.kernel.mean:.3g} ({row.kernel.spread:.3g})"
        lines.append([row.group.name, str(len(row.group.samples)), kernel, f"{row.frechet:.4g}"])
    return aligned(lines)


def feature_map(reference: Floats, groups: Sequence[tuple[str, Floats]]) -> "Figure":
    """Plot features (N, C) in two principal components, which are fitted to the reference and the negatives only."""
    from matplotlib.figure import Figure
    from sklearn.decomposition import PCA

    axes_of = PCA(2, svd_solver="full").fit(
        np.concatenate([reference, *(f for name, f in groups if name == NEGATIVES)])
    )
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    for number, (name, found) in enumerate([*groups, (REFERENCE, reference)]):
        colour, marker = _LOOKS.get(name, (f"C{number}", "x"))
        x, y = axes_of.transform(found).T
        axes.scatter(x, y, s=22, c=colour, marker=marker, alpha=0.7, linewidths=1, label=name)
    shares = axes_of.explained_variance_ratio_
    axes.set(xlabel=f"first component ({shares[0]:.0%} of real variance)", ylabel=f"second ({shares[1]:.0%})")
    axes.legend(fontsize="small")
    return figure
