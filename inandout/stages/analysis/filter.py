"""Entry point `filter`: keep pool images that resemble real defects in the features of a trained classifier."""

import csv
import io
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mlflow
import numpy as np
from scipy.spatial.distance import cdist

from inandout.classifier.features import features
from inandout.classifier.pixels import load_pixels
from inandout.data.images import read_image
from inandout.data.manifest import Sample, digest, digests, fingerprint, write_manifest
from inandout.data.text import to_cell
from inandout.errors import InputError
from inandout.evaluation.conformal_filter import (
    FilterResult,
    RealFeatures,
    Thresholds,
    apply_thresholds,
    fit_thresholds,
)
from inandout.evaluation.distances import Features, nearest
from inandout.evaluation.metrics import Floats
from inandout.fingerprints import Identity
from inandout.reporting.figures import contact_sheet
from inandout.review.decisions import Decision
from inandout.review.session import identity_of
from inandout.stages.analysis.config import FilterConfig
from inandout.stages.classify.synthetic import training_digests
from inandout.stages.classify.trained_classifier import TrainedClassifier
from inandout.stages.pools.decisions import DECISIONS, POOL_TAG, load_review
from inandout.stages.pools.drawing_config import DRAWN_WITH, read_drawing_config
from inandout.stages.pools.pool import Pool, log_pool, open_pool, pool_folder, read_pool, refuse_unfit, work_pool
from inandout.tracking.logging import log_values
from inandout.tracking.runs import artifact_folder, run_stage
from inandout.tracking.store import connect

TABLE = "filter.csv"
"""Artifact: one row per image of the pool, in order."""
N_SHOWN = 16
"""Maximum number of kept, and of rejected, images on the contact sheet."""


class _Judged(NamedTuple):
    """Results and distances of the images of a pool, in order."""

    results: list[FilterResult]
    negatives: Floats
    """Distance (N,) to the nearest training negative, excluding the part that the image was drawn on."""
    positives: Floats | None
    """Distance (N,) to the nearest training positive; None if the shot has none."""
    sources: Floats
    """Novelty (N,): distance to the nearest source image; NaN if the image records no sources."""


class _ReferenceFeatures(NamedTuple):
    """Features of training and validation images."""

    train: Features
    contents: list[str]
    """Digests of the images behind `train`."""
    negatives: list[tuple[str, str]]
    """Digest and group of the images behind `real.negatives`."""
    real: RealFeatures
    defects: Features
    """Features of validation positives; empty with zero and few shots."""


def filter_pool(config: FilterConfig) -> Pool:
    """Keep pool images whose features differ from good parts and, if real defects are available, resemble them.

    Thresholds on feature distances come from training and validation images only. The result is a pool for `classify`
    and a table with the distances of all images.
    """
    if not config.pool:
        raise InputError("pool is empty; give the run id of augment, or a pool folder")
    connect()
    trained = TrainedClassifier.open(config.run)
    rows, images, decisions = load_review(read_pool(pool_folder(config.pool).resolve()).samples)
    _refuse_learned(config, rows)
    refuse_unfit(trained.data, [row.with_(review="") for row in rows])
    inputs = {"data": fingerprint(trained.data), "run": digest(trained.weights), "pool": fingerprint(rows)}
    identity = Identity("filter", __name__, config, inputs, ignored=("run", "pool"))
    name = f"filter {rows[0].origin} of {len(rows)}, run {config.run[:8]}"
    run = run_stage(
        identity, name, trained.config.data.data, trained.data,
        lambda work: _filter(config, trained, rows, images, decisions, work),
    )  # fmt: skip
    print(artifact_folder(run.info.run_id, "filter.md").read_text(encoding="utf-8"))
    pool = open_pool(run.info.run_id)
    how = "--memseg-pool" if rows[0].origin == "memseg" else "--ddpm-ratio 1 --ddpm-pool"
    print(f"train with `python -m inandout classify --n-aug {len(pool.samples)} {how} {pool.run_id}`")
    return pool


def _refuse_learned(config: FilterConfig, rows: Sequence[Sample]) -> None:
    overlap = training_digests(config.run) & set(digests([row.image for row in rows]))
    if overlap:
        raise InputError(
            f"run = {config.run}: was trained on {len(overlap)} of the {len(rows)} images of pool {config.pool}; "
            "give a run that was not trained on this pool"
        )


def _filter(
    config: FilterConfig,
    trained: TrainedClassifier,
    rows: Sequence[Sample],
    images: Sequence[str],
    decisions: Sequence[Decision],
    work: Path,
) -> None:
    reference = _reference_features(trained)
    thresholds = fit_thresholds(reference.real, config.quantile)
    judged = _judge(trained, reference, rows, thresholds)
    _log(rows, judged, thresholds, reference)
    kept = [number for number, result in enumerate(judged.results) if result == "kept"]
    if not kept:
        counts = Counter(judged.results)
        raise InputError(
            f"pool = {config.pool}: none of its {len(rows)} images is kept, {counts['good']} resemble good parts and "
            f"{counts['unlike']} differ from real defects; generate another pool, or give a lower quantile"
        )
    folder = work_pool(work)
    copies = [_copy(rows[number], folder / f"{number:06d}.png") for number in kept]
    write_manifest([row.with_(review="") for row in copies], folder / "manifest.csv")
    _log_provenance(config.pool, {images[number] for number in kept}, decisions)
    log_pool(folder, copies, trained.data, trained.geometry)


def _reference_features(trained: TrainedClassifier) -> _ReferenceFeatures:
    """Compute features of training and validation images; the test part is not used."""
    net, known = trained.load_fastest(), trained.take_known(trained.data)
    train = [sample for sample in trained.data if sample.split == "train"]
    images, labels = {sample.image for sample in known}, np.array([sample.label for sample in train])
    of_train = features(net, _pixels(trained, train))
    in_shot = np.array([sample.image in images for sample in train])
    good = trained.rows("val", 0)
    unseen, groups = features(net, _pixels(trained, good)), [sample.group for sample in good]
    defects = [sample for sample in known if (sample.split, sample.label) == ("val", 1)]
    real = RealFeatures(of_train[labels == 0], of_train[(labels == 1) & in_shot], unseen, groups)
    contents = digests([sample.image for sample in train])
    negatives = [(content, sample.group) for content, sample in zip(contents, train, strict=True) if sample.label == 0]
    return _ReferenceFeatures(of_train, contents, negatives, real, features(net, _pixels(trained, defects)))


def _pixels(trained: TrainedClassifier, samples: Sequence[Sample]) -> np.ndarray:
    return load_pixels([sample.image for sample in samples], trained.geometry)


def _judge(
    trained: TrainedClassifier, reference: _ReferenceFeatures, rows: Sequence[Sample], thresholds: Thresholds
) -> _Judged:
    pool_features = features(trained.load_fastest(), _pixels(trained, rows))
    to_negatives = _distances_to_negatives(pool_features, reference, rows)
    to_positives = nearest(pool_features, reference.real.positives) if len(reference.real.positives) else None
    index = {content: number for number, content in enumerate(reference.contents)}
    to_sources = [
        nearest(feature[None], reference.train[[index[source] for source in row.sources]])[0] if row.sources else np.nan
        for feature, row in zip(pool_features, rows, strict=True)
    ]
    results = apply_thresholds(to_negatives, to_positives, thresholds)
    return _Judged(results, to_negatives, to_positives, np.array(to_sources))


def _distances_to_negatives(pool_features: Features, reference: _ReferenceFeatures, rows: Sequence[Sample]) -> Floats:
    """Return distances (N,) to good parts; exclude the source part, which is trivially closest."""
    distances = cdist(pool_features, reference.real.negatives)
    for number, row in enumerate(rows):
        distances[number, [_is_canvas(*negative, row) for negative in reference.negatives]] = np.inf
    return distances.min(axis=1)


def _is_canvas(content: str, group: str, row: Sample) -> bool:
    """Return whether `row` was drawn on the image with this digest, or on another image of the same physical part."""
    return row.origin not in ("ddpm", "other") and (content == row.sources[0] or (group != "" and group == row.group))


def _log(rows: Sequence[Sample], judged: _Judged, thresholds: Thresholds, reference: _ReferenceFeatures) -> None:
    counts = Counter(judged.results)
    mlflow.log_text(_table(rows, judged), TABLE)
    mlflow.log_image(_sheet(rows, judged), artifact_file="filter.png")
    log_values({f"images_{name}": float(counts[name]) for name in ("kept", "good", "unlike")})
    log_values({"threshold_negatives": thresholds.negatives})
    if np.isfinite(judged.sources).any():
        log_values({"median_novelty": float(np.nanmedian(judged.sources))})
    if thresholds.positives is not None:
        log_values({"threshold_positives": thresholds.positives})
    near_defects = (
        "" if thresholds.positives is None else f" and nearer than {thresholds.positives:.3g} to the nearest defect"
    )
    lines = [
        f"{counts['kept']} of {len(rows)} images are kept; {counts['good']} resemble good parts, {counts['unlike']} "
        "differ from real defects.",
        f"Kept images are farther than {thresholds.negatives:.3g} from the nearest good part of the training part"
        f"{near_defects}.",
        *_checks(reference, thresholds),
    ]
    mlflow.log_text("\n".join(lines), "filter.md")


def _checks(reference: _ReferenceFeatures, thresholds: Thresholds) -> list[str]:
    """Apply the thresholds to real validation images; return one sentence per label."""
    lines = []
    for key, name, found in (("good", "good parts", reference.real.unseen), ("defects", "defects", reference.defects)):
        if len(found):
            to_positives = nearest(found, reference.real.positives) if len(reference.real.positives) else None
            kept = apply_thresholds(nearest(found, reference.real.negatives), to_positives, thresholds).count("kept")
            log_values({f"val_{key}_kept": kept / len(found)})
            lines.append(f"The thresholds keep {kept} of {len(found)} real {name} of the validation part.")
    return lines


def _table(rows: Sequence[Sample], judged: _Judged) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["image", "result", "to_negatives", "to_positives", "novelty", "prompt", "seed"])
    for number, row in enumerate(rows):
        positive = "" if judged.positives is None else f"{judged.positives[number]:.6g}"
        distances = [f"{judged.negatives[number]:.6g}", positive, f"{judged.sources[number]:.6g}"]
        name, prompt = to_cell(row.image.name), to_cell(row.prompt)
        writer.writerow([name, judged.results[number], *distances, prompt, row.seed])
    return text.getvalue()


def _sheet(rows: Sequence[Sample], judged: _Judged) -> np.ndarray:
    """Return a contact sheet of kept, then rejected images, with distances to the nearest good part."""
    kept = [number for number, result in enumerate(judged.results) if result == "kept"][:N_SHOWN]
    rejected = [number for number, result in enumerate(judged.results) if result != "kept"][:N_SHOWN]
    captions = [f"{judged.results[number]} {judged.negatives[number]:.3g}" for number in kept + rejected]
    return contact_sheet([read_image(rows[number].image) for number in kept + rejected], captions)


def _copy(row: Sample, image: Path) -> Sample:
    """Copy an image to `image` and its mask beside it; return the new row."""
    shutil.copyfile(row.image, image)
    mask = image.with_name(f"{image.stem}_mask.png")
    if row.mask:
        shutil.copyfile(row.mask, mask)
    return row.with_(image=image, mask=mask if row.mask else None)


def _log_provenance(where: str, kept: set[str], decisions: Sequence[Decision]) -> None:
    """Log the decisions on kept images (digests), and the configuration that drew the pool."""
    about = [decision for decision in decisions if decision.image in kept]
    if about:
        mlflow.set_tag(POOL_TAG, identity_of(sorted(kept)))
        mlflow.log_text("".join(decision.model_dump_json(ensure_ascii=True) + "\n" for decision in about), DECISIONS)
    drawing = None if Path(where).is_dir() else read_drawing_config(where)
    if drawing is not None:
        mlflow.log_dict(drawing.flat(), DRAWN_WITH)
