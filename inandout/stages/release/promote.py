"""Entry point `promote`: register a trained classifier as a version of a model."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mlflow
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from inandout.data.config import EMBEDDED
from inandout.errors import InputError
from inandout.evaluation.operating_points import OperatingPoint, choose_point, measure_point, parse_rule
from inandout.fingerprints import Identity, code_fingerprint
from inandout.reporting.model_card import Facts, ap_with_interval, command_line, model_card
from inandout.serving.champion_gate import champion_gate
from inandout.serving.log_model import log_servable, measure_pointing
from inandout.serving.registry import (
    CHAMPION,
    GATE,
    ROLLED_BACK,
    add_version,
    registry_lock,
    set_champion,
    version_at,
    version_of,
)
from inandout.serving.settings import Settings
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.scores import read_scores
from inandout.stages.classify.trained_classifier import TrainedClassifier
from inandout.stages.release.candidates import best_by_validation
from inandout.stages.release.config import UNSTATED, PromoteConfig
from inandout.stages.release.export import export_onnx
from inandout.tracking.runs import run_stage
from inandout.tracking.store import connect

CARD = "model_card.md"
"""Artifact of `promote` and of the model."""
RUN_TAG = "run"
"""Version tag: run id of the classifier."""
_URI_TAG = "inandout.servable"
"""Run tag of `promote`: URI of the logged model."""


class Points(NamedTuple):
    """Operating points with their metrics on the validation part (`chosen`) and test part (`measured`)."""

    chosen: list[OperatingPoint]
    measured: list[OperatingPoint]


class Promotion(NamedTuple):
    """Result of `promote`."""

    version: int
    champion: bool
    why: str


def promote(config: PromoteConfig) -> Promotion:
    """Register a trained classifier as a model version; make it the champion if it beats the current champion.

    Raises:
        InputError: the classifier has no test AP, its export gives other scores, an operating point cannot be chosen,
            or the champion was evaluated on another test part.
    """
    connect()
    candidate = TrainedClassifier.open(config.run) if config.run else best_by_validation()
    if "ap" not in candidate.run.data.metrics:
        notes = candidate.run.data.tags.get("inandout.notes")
        raise InputError(f"run = {candidate.run_id}: has no test AP ({notes}); give another run")
    points = _points(config, candidate)
    _refuse_other_test(config.name, candidate, version_at(config.name, CHAMPION))
    run = _released(config, candidate, points)
    with registry_lock(config.name):
        result = _register(config, candidate, run)
    print(f"{config.name} version {result.version}: {'champion' if result.champion else 'not champion'}; {result.why}")
    return result


def _points(config: PromoteConfig, candidate: TrainedClassifier) -> Points:
    rules = list(dict.fromkeys(parse_rule(part) for part in config.points.split(",") if part.strip()))
    if not rules:
        raise InputError("points is empty; give, for example, recall>=0.95, fpr<=0.01, cost 50:1 or validation")
    val, test, max_fpr = candidate.scores("val"), candidate.scores(), candidate.config.val_fpr
    chosen = [choose_point(rule, val, max_fpr, config.defect_share) for rule in rules]
    return Points(chosen, [measure_point(point, test) for point in chosen])


def _refuse_other_test(name: str, candidate: TrainedClassifier, champion: ModelVersion | None) -> None:
    if champion is not None and champion.tags.get("test_fingerprint") != candidate.test_fingerprint:
        raise InputError(
            f"run = {candidate.run_id}: cannot be compared with the champion, version {champion.version} of {name}, "
            "which has another test part; train on the champion's data, or give another name"
        )


def _released(config: PromoteConfig, candidate: TrainedClassifier, points: Points) -> Run:
    """Return the run with the servable model, its card and operating points; reuse a finished one."""
    released = config.model_copy(update={"run": candidate.run_id})
    identity = Identity("promote", __name__, released, {"data": candidate.data_fingerprint}, ignored=["name"])
    name = f"promote {candidate.run.info.run_name}"
    card = model_card(_facts(config, candidate, points))
    return run_stage(
        identity, name, candidate.config.data.data, candidate.samples, lambda work: _release(candidate, points, card)
    )


def _release(candidate: TrainedClassifier, points: Points, card: str) -> None:
    """Check the export, then log the model with its card; the first operating point is the default."""
    mlflow.log_metric("export_difference", _check_export(candidate, points.measured[0]))
    mlflow.log_dict({"points": [point.model_dump(mode="json") for point in points.measured]}, "operating_points.json")
    uri = log_classifier(candidate, points.measured, points.measured[0].rule)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CARD
        path.write_text(card, encoding="utf-8")
        mlflow.log_artifact(str(path))
        mlflow.MlflowClient().log_model_artifact(uri.removeprefix("models:/"), str(path))
    mlflow.set_tag(_URI_TAG, uri)


def _check_export(candidate: TrainedClassifier, point: OperatingPoint) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return export_onnx(candidate, point, Path(folder) / "classifier.onnx")


def log_classifier(candidate: TrainedClassifier, points: Sequence[OperatingPoint], default: str) -> str:
    """Log a servable model of a classifier to the active run; its heat maps are evaluated on the test part.

    Args:
        candidate: classifier to log.
        points: operating points that a request can choose.
        default: rule of the operating point for requests that name none.

    Returns:
        The model URI, `models:/m-...`.

    Raises:
        InputError: `default` is not among the points.
    """
    measured, sentence = measure_pointing(candidate.load(), candidate.geometry, candidate.test)
    settings = Settings(
        geometry=candidate.geometry, points=tuple(points), default=default, run=candidate.run_id,
        code=code_fingerprint(__name__), heat_maps=sentence,
    )  # fmt: skip
    return log_servable(candidate.weights, settings, measured)


def _facts(config: PromoteConfig, candidate: TrainedClassifier, points: Points) -> Facts:
    run = candidate.run
    changed = {name: value for name, value in config.changed().items() if name not in ("run", "name", "fresh")}
    return Facts(
        run_id=candidate.run_id, config=candidate.config.flat(), params=run.data.params,
        metrics=run.data.metrics, tags=run.data.tags,
        data_fingerprint=candidate.data_fingerprint, test_fingerprint=candidate.test_fingerprint,
        data_licence=_data_licence(config, candidate.config), base_licence=base_licence(candidate.config),
        chosen=points.chosen, measured=points.measured,
        commands=[
            command_line("classify", candidate.config.changed()),
            command_line("promote", {"run": candidate.run_id} | changed),
        ],
    )  # fmt: skip


def _data_licence(config: PromoteConfig, candidate: ClassifyConfig) -> str:
    embedded = config.data_licence == UNSTATED and candidate.data.data == EMBEDDED
    return "Apache-2.0 (drawn by this package)" if embedded else config.data_licence


def base_licence(config: ClassifyConfig) -> str:
    """Return the licence of the base that drew the synthetic defects."""
    if not config.shares()[0]:
        return "none used"
    if config.ddpm_pool:
        return f"see the licence of the base of pool {config.ddpm_pool}"
    base = config.base.base
    return "Apache-2.0 (embedded)" if base == "embedded" else f"see the licence of {base}"


def _register(config: PromoteConfig, candidate: TrainedClassifier, run: Run) -> Promotion:
    """Register the run as a version, unless it already is one, and apply the champion gate. Needs the registry lock."""
    champion = version_at(config.name, CHAMPION)
    version = version_of(config.name, run.info.run_id)
    if champion is not None and version is not None and champion.version == version.version:
        return Promotion(int(version.version), True, "it is already the champion")
    if version is not None and ROLLED_BACK in version.tags:
        why = f"not passed: it was rolled back, {version.tags[ROLLED_BACK]}; only `rollback` can restore it"
        return Promotion(int(version.version), False, why)
    _refuse_other_test(config.name, candidate, champion)
    theirs = read_scores(champion.tags[RUN_TAG]) if champion is not None else None
    wins, why = champion_gate(candidate.scores(), theirs, str(champion.version) if champion is not None else "")
    if version is None:
        uri = mlflow.get_run(run.info.run_id).data.tags[_URI_TAG]
        version = add_version(config.name, uri, _tags(config, candidate) | {GATE: why})
    else:
        mlflow.MlflowClient().set_model_version_tag(config.name, version.version, GATE, why)
    if wins:
        set_champion(config.name, version)
    return Promotion(int(version.version), wins, why)


def _tags(config: PromoteConfig, candidate: TrainedClassifier) -> dict[str, str]:
    """Return the tags of a version."""
    return {
        RUN_TAG: candidate.run_id,
        "alpha": "none used" if candidate.config.alpha is None else f"{candidate.config.alpha:g}",
        "n_aug": str(candidate.config.mix.n_aug),
        "ddpm_ratio": f"{candidate.config.ddpm_ratio:g}",
        "shot": candidate.config.scenario.describe(),
        "seeds": candidate.config.describe_seed(),
        "ap": ap_with_interval(candidate.run.data.metrics),
        "data_fingerprint": candidate.data_fingerprint,
        "test_fingerprint": candidate.test_fingerprint,
        "data_licence": _data_licence(config, candidate.config),
        "base_licence": base_licence(candidate.config),
    }
