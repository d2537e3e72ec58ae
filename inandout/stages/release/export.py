"""Entry point `export`: write a classifier as an ONNX file, compare it with torch, and measure its latency."""

import platform
import shutil
from pathlib import Path
from typing import NamedTuple

import mlflow
import torch

from inandout.data.manifest import digest, fingerprint
from inandout.errors import InputError, brief
from inandout.evaluation.operating_points import OperatingPoint, choose_point, parse_rule
from inandout.files import replacing
from inandout.fingerprints import Identity
from inandout.serving.export import CHECKED, write_export
from inandout.serving.latency import BATCHES, latency_table, measure_latency
from inandout.serving.settings import Settings
from inandout.stages.classify.trained_classifier import TrainedClassifier
from inandout.stages.release.config import ExportConfig
from inandout.tracking.logging import describe_location, log_values
from inandout.tracking.runs import artifact_folder, run_stage
from inandout.tracking.store import connect

FILE = "classifier.onnx"
"""Artifact of `export`."""


class Exported(NamedTuple):
    """Exported file and measurements."""

    run_id: str
    path: Path
    difference: float
    """Largest absolute difference of a logit from torch."""
    table: str


def export(config: ExportConfig) -> Exported:
    """Write, check and time the ONNX file, or reuse the finished run.

    The file contains normalisation and threshold. Its input is uint8 RGB images (N, 3, H, W) of the model's size, for
    any N. The caller crops and resizes images, because ONNX lacks Pillow's filter.
    """
    out = Path(config.out)
    _refuse_unclear(config, out)
    connect()
    trained, point = _from_model(config) if config.model else _from_run(config)
    inputs = {
        "data": fingerprint(trained.test_files()),
        "run": digest(trained.weights),
        "rule": point.model_dump_json(),
    }
    identity = Identity("export", __name__, config, inputs, ignored=("run", "model", "rule", "out"))
    name = f"export of {trained.run_id[:8]} at {point.rule}"
    run = run_stage(
        identity, name, trained.config.data.data, trained.test, lambda work: _write(config, trained, point, work)
    )
    _copy(artifact_folder(run.info.run_id, FILE), out)
    table = artifact_folder(run.info.run_id, "latency.md").read_text(encoding="utf-8")
    difference = run.data.metrics["export_max_difference"]
    print(
        f"\n{table}\n\n{out}: written; its outputs differ from torch by at most {difference:.2g}\n"
        f"{describe_location(run)}"
    )
    return Exported(run.info.run_id, out, difference, table)


def _refuse_unclear(config: ExportConfig, out: Path) -> None:
    """Check options without reading anything."""
    if bool(config.run) == bool(config.model):
        raise InputError("give either run, the id of a classify run, or model, models:/NAME@champion")
    if config.model and not config.model.startswith("models:/"):
        raise InputError(f"model = {config.model!r}: is not a model URI; give models:/NAME@champion")
    if out.exists():
        raise InputError(f"out = {out}: already exists; give another name")
    if not out.parent.is_dir():
        raise InputError(f"out = {out}: folder {out.parent} does not exist; create it, or give another file")


def _copy(source: Path, out: Path) -> None:
    try:
        with replacing(out) as temporary:
            shutil.copyfile(source, temporary)
    except OSError as error:
        raise InputError(f"out = {out}: cannot be written ({error.strerror}); free some space") from error


def _from_run(config: ExportConfig) -> tuple[TrainedClassifier, OperatingPoint]:
    """Return the classifier of a run and an operating point chosen on its validation part."""
    trained, rule = TrainedClassifier.open(config.run), parse_rule(config.rule or "validation")
    return trained, choose_point(rule, trained.scores("val"), trained.config.val_fpr)


def _from_model(config: ExportConfig) -> tuple[TrainedClassifier, OperatingPoint]:
    """Return the classifier of a promoted model and one of the model's operating points."""
    try:
        folder = Path(mlflow.artifacts.download_artifacts(f"{config.model}/artifacts/settings.json"))
    except (mlflow.MlflowException, OSError) as error:
        raise InputError(
            f"model = {config.model}: is not a promoted classifier ({brief(error)}); give models:/NAME@champion"
        ) from error
    settings = Settings.model_validate_json(folder.read_text(encoding="utf-8"))
    return TrainedClassifier.open(settings.run), settings.point(config.rule or settings.default)


def export_onnx(trained: TrainedClassifier, point: OperatingPoint, path: Path) -> float:
    """Write a classifier as an ONNX file.

    Returns:
        Largest absolute difference of a logit from torch on 20 test images.

    Raises:
        InputError: the difference is above 1e-4, or test images are missing.
    """
    return write_export(
        trained.load(), trained.test_pixels(CHECKED), path, geometry=trained.geometry, point=point,
        run_id=trained.run_id,
    )  # fmt: skip


def _write(config: ExportConfig, trained: TrainedClassifier, point: OperatingPoint, work: Path) -> None:
    path = work / FILE
    log_values({"export_max_difference": export_onnx(trained, point, path)})
    mlflow.log_params({"exported_run": trained.run_id, "point": point.rule, "threshold": point.threshold})
    mlflow.log_artifact(str(path))
    files = [sample.image.read_bytes() for sample in trained.test_files()[: max(BATCHES)]]
    timings = measure_latency(trained.load, trained.geometry, files, path, config.rounds)
    threads = torch.get_num_threads()
    title = (
        f"Milliseconds per prediction at {trained.geometry.width}x{trained.geometry.height}, from encoded images to "
        f"logits, on {threads} thread{'s' * (threads > 1)} of a CPU ({platform.machine()}); cold includes loading "
        "the model:"
    )
    mlflow.log_text(f"{title}\n\n{latency_table(timings)}", "latency.md")
    log_values({f"{each.engine}_{each.state}_{each.batch}_p50_ms": each.milliseconds()[0] for each in timings})
