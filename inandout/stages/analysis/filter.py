"""Entry point `filter`: keep the pool images that a trained classifier's features index among defects."""

import csv
import io
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mlflow
import numpy as np
from pydantic import Field
from scipy.spatial.distance import cdist

from inandout.classifier.features import features
from inandout.classifier.pixels import load_pixels
from inandout.data.images import read_image
from inandout.data.manifest import Sample, digest, digests, fingerprint, write_manifest
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
from inandout.options import Fresh, StageConfig
from inandout.reporting.figures import contact_sheet
from inandout.review.decisions import Decision
from inandout.review.session import identity_of
from inandout.stages.classify.synthetic import training_digests
from inandout.stages.classify.trained_classifier import TrainedClassifier
from inandout.stages.pools.decisions import DECISIONS, POOL_TAG, review_of
from inandout.stages.pools.pool import Pool, log_pool, open_pool, pool_folder, read_pool, refuse_unfit, work_pool
from inandout.stages.pools.text2img import DRAWN_WITH, drawn_with
from inandout.tracking.logging import log_values
from inandout.tracking.runs import artifact_folder, run_stage
from inandout.tracking.store import connect

TABLE = "filter.csv"
"""Artifact: one row per image of the pool, in order."""
SHOWN = 16
"""Kept and rejected images on the contact sheet, of each at most."""


class FilterConfig(StageConfig):
    """Options of `filter`."""

    pool: str = Field("", description="run id or folder of the pool")
    run: str = Field("", description="run id of a classify that was not trained with this pool: its ResNet-50 judges")
    quantile: float = Field(
        0.95, gt=0, lt=1, description="share of unseen good parts that each threshold holds back, at least"
    )
    fresh: Fresh = False


class _Judged(NamedTuple):
    """Results and distances of the images of a pool, in order."""

    results: list[FilterResult]
    negatives: Floats
    """Distance (N,) to the nearest training negative, excluding the part that the image was drawn on."""
    positives: Floats | None
    """Distance (N,) to the nearest training positive; None if the shot has none."""
    sources: Floats
    """Novelty (N,): distance to the nearest source image."""


class _Seen(NamedTuple):
    """Features of the images of a data set that may be looked at."""

    train: Features
    contents: list[str]
    """Digests of the images behind `train`."""
    negatives: list[tuple[str, str]]
    """Digest and group of the images behind `real.negatives`."""
    real: RealFeatures
    defects: Features
    """Positives of the validation part; none with zero and few shots."""


def filter_pool(config: FilterConfig) -> Pool:
    """Keep pool images whose features differ from good parts and, if real defects are available, resemble them.

    Thresholds on feature distances come from training and validation images only. The result is a pool for `classify`
    and a table with the distances of all images.
    """
    if not config.pool:
        raise InputError("pool is empty; give the run id of augment, or the folder of a pool")
    connect()
    trained = TrainedClassifier.open(config.run)
    rows, images, decisions = review_of(read_pool(pool_folder(config.pool).resolve()).samples)
    _refuse_learned(config, rows)
    refuse_unfit(trained.data, [row.with_(review="") for row in rows])
    inputs = {"data": fingerprint(trained.data), "run": digest(trained.weights), "pool": fingerprint(rows)}
    identity = Identity("filter", __name__, config, inputs, ignored=("run", "pool"))
    name = f"{rows[0].origin} filtered of {len(rows)}, run {config.run[:8]}"
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
    known = training_digests(config.run) & set(digests([row.image for row in rows]))
    if known:
        raise InputError(
            f"run = {config.run}: was trained with {len(known)} of the {len(rows)} images of pool {config.pool} and "
            "knows them by heart; give a run that was not"
        )


def _filter(
    config: FilterConfig,
    trained: TrainedClassifier,
    rows: Sequence[Sample],
    images: Sequence[str],
    decisions: Sequence[Decision],
    work: Path,
) -> None:
    seen = _look(trained)
    thresholds = fit_thresholds(seen.real, config.quantile)
    judged = _judge(trained, seen, rows, thresholds)
    _log(rows, judged, thresholds, seen)
    kept = [number for number, result in enumerate(judged.results) if result == "kept"]
    if not kept:
        counts = Counter(judged.results)
        raise InputError(
            f"pool = {config.pool}: none of its {len(rows)} images is left, {counts['good']} look like good parts "
            f"and {counts['unlike']} are unlike the real defects; draw others, or give a lower quantile"
        )
    folder = work_pool(work)
    copies = [_copy(rows[number], folder / f"{number:06d}.png") for number in kept]
    write_manifest([row.with_(review="") for row in copies], folder / "manifest.csv")
    _keep_what_is_known(config.pool, {images[number] for number in kept}, decisions)
    log_pool(folder, copies)


def _look(trained: TrainedClassifier) -> _Seen:
    """Features of training and validation images; the test part is left alone."""
    net, known = trained.load_fastest(), trained.take_known(trained.data)
    train = [sample for sample in trained.data if sample.split == "train"]
    images, labels = {sample.image for sample in known}, np.array([sample.label for sample in train])
    of_train = features(net, _pixels(trained, train))
    in_shot = np.array([sample.image in images for sample in train])
    unseen = features(net, _pixels(trained, trained.rows("val", 0)))
    defects = [sample for sample in known if (sample.split, sample.label) == ("val", 1)]
    real = RealFeatures(of_train[labels == 0], of_train[(labels == 1) & in_shot], unseen)
    contents = digests([sample.image for sample in train])
    negatives = [(content, one.group) for content, one in zip(contents, train, strict=True) if one.label == 0]
    return _Seen(of_train, contents, negatives, real, features(net, _pixels(trained, defects)))


def _pixels(trained: TrainedClassifier, samples: Sequence[Sample]) -> np.ndarray:
    return load_pixels([sample.image for sample in samples], trained.geometry)


def _judge(trained: TrainedClassifier, seen: _Seen, rows: Sequence[Sample], thresholds: Thresholds) -> _Judged:
    found = features(trained.load_fastest(), _pixels(trained, rows))
    to_negatives = _to_others(found, seen, rows)
    to_positives = nearest(found, seen.real.positives) if len(seen.real.positives) else None
    place = {content: number for number, content in enumerate(seen.contents)}
    to_sources = [
        nearest(one[None], seen.train[[place[source] for source in row.sources]])[0]
        for one, row in zip(found, rows, strict=True)
    ]
    results = apply_thresholds(to_negatives, to_positives, thresholds)
    return _Judged(results, to_negatives, to_positives, np.array(to_sources))


def _to_others(found: Features, seen: _Seen, rows: Sequence[Sample]) -> Floats:
    """A defect that was drawn on a good part is nearest to that part, which an unseen good part has no like of."""
    distances = cdist(found, seen.real.negatives)
    for number, row in enumerate(rows):
        distances[number, [_is_canvas(*negative, row) for negative in seen.negatives]] = np.inf
    return distances.min(axis=1)


def _is_canvas(content: str, group: str, row: Sample) -> bool:
    """Return whether `row` was drawn on the image with this digest, or on another image of the same physical part."""
    return row.origin != "ddpm" and (content == row.sources[0] or (group != "" and group == row.group))


def _log(rows: Sequence[Sample], judged: _Judged, thresholds: Thresholds, seen: _Seen) -> None:
    counts = Counter(judged.results)
    mlflow.log_text(_table(rows, judged), TABLE)
    mlflow.log_image(_sheet(rows, judged), artifact_file="filter.png")
    log_values({f"images_{name}": float(counts[name]) for name in ("kept", "good", "unlike")})
    log_values({"threshold_negatives": thresholds.negatives, "median_novelty": float(np.median(judged.sources))})
    if thresholds.positives is not None:
        log_values({"threshold_positives": thresholds.positives})
    near_defects = (
        "" if thresholds.positives is None else f", and nearer than {thresholds.positives:.3g} to its nearest defect"
    )
    lines = [
        f"{counts['kept']} of {len(rows)} images are kept; {counts['good']} look like good parts, {counts['unlike']} "
        "are unlike the real defects.",
        f"Kept is what is farther than {thresholds.negatives:.3g} from the nearest good part of the training part"
        f"{near_defects}.",
        *_checks(seen, thresholds),
    ]
    mlflow.log_text("\n".join(lines), "filter.md")


def _checks(seen: _Seen, thresholds: Thresholds) -> list[str]:
    """Apply the thresholds to real validation images; return one sentence per label."""
    lines = []
    for key, name, found in (("good", "good parts", seen.real.unseen), ("defects", "defects", seen.defects)):
        if len(found):
            to_positives = nearest(found, seen.real.positives) if len(seen.real.positives) else None
            kept = apply_thresholds(nearest(found, seen.real.negatives), to_positives, thresholds).count("kept")
            log_values({f"val_{key}_kept": kept / len(found)})
            lines.append(f"Of {len(found)} real {name} of the validation part {kept} would be kept.")
    return lines


def _table(rows: Sequence[Sample], judged: _Judged) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["image", "result", "to_negatives", "to_positives", "novelty", "prompt", "seed"])
    for number, row in enumerate(rows):
        positive = "" if judged.positives is None else f"{judged.positives[number]:.6g}"
        distances = [f"{judged.negatives[number]:.6g}", positive, f"{judged.sources[number]:.6g}"]
        writer.writerow([row.image.name, judged.results[number], *distances, row.prompt, row.seed])
    return text.getvalue()


def _sheet(rows: Sequence[Sample], judged: _Judged) -> np.ndarray:
    """Return a contact sheet of kept, then rejected images, with distances to the nearest good part."""
    kept = [number for number, result in enumerate(judged.results) if result == "kept"][:SHOWN]
    rejected = [number for number, result in enumerate(judged.results) if result != "kept"][:SHOWN]
    captions = [f"{judged.results[number]} {judged.negatives[number]:.3g}" for number in kept + rejected]
    return contact_sheet([read_image(rows[number].image) for number in kept + rejected], captions)


def _copy(row: Sample, image: Path) -> Sample:
    """Copy an image to `image` and its mask beside it; return the new row."""
    shutil.copyfile(row.image, image)
    mask = image.with_name(f"{image.stem}_mask.png")
    if row.mask:
        shutil.copyfile(row.mask, mask)
    return row.with_(image=image, mask=mask if row.mask else None)


def _keep_what_is_known(where: str, kept: set[str], decisions: Sequence[Decision]) -> None:
    """What reviewers decided on the images that are kept (digests), and what all were drawn with."""
    about = [one for one in decisions if one.image in kept]
    if about:
        mlflow.set_tag(POOL_TAG, identity_of(sorted(kept)))
        mlflow.log_text("".join(one.model_dump_json(ensure_ascii=True) + "\n" for one in about), DECISIONS)
    drawn = None if Path(where).is_dir() else drawn_with(where)
    if drawn is not None:
        mlflow.log_dict(drawn.flat(), DRAWN_WITH)
