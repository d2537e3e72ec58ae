"""Logging of a trained classifier as an MLflow model for serving."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, ColSpec

import inandout
from inandout.classifier.backbone import DefectNet
from inandout.classifier.heatmap import Pointing, heat_maps, pointing
from inandout.classifier.pixels import load_pixels
from inandout.data.config import Geometry
from inandout.data.geometry import fit_mask
from inandout.data.images import read_mask
from inandout.data.manifest import Sample
from inandout.serving.settings import Settings
from inandout.tracking.logging import pip_requirements

CODE = Path(__file__).with_name("model_code.py")


def log_servable(weights: Path, settings: Settings, score: Pointing | None) -> str:
    """Log a classifier to the active run, for `mlflow models serve`.

    Args:
        weights: file written by `save_classifier`.
        settings: stored with the model.
        score: pointing score of its heat maps, logged as metrics of the model.

    Returns:
        The model URI, `models:/m-...`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings.json"
        path.write_text(settings.model_dump_json(indent=2), encoding="utf-8")
        logged = mlflow.pyfunc.log_model(
            name="servable", python_model=str(CODE), artifacts={"settings": str(path), "weights": str(weights)},
            signature=signature(settings.default),
            pip_requirements=[*pip_requirements(), f"inandout=={inandout.__version__}"],
        )  # fmt: skip
    if score:
        values = {"pointing": score.hits, "pointing_chance": score.chance, "pointing_energy": score.energy}
        mlflow.log_metrics(values, model_id=logged.model_id)
    return str(logged.model_uri)


def signature(default: str) -> ModelSignature:
    """Return the signature of requests and responses; `prepare_rows` validates the images."""
    image = AnyType()  # type: ignore[no-untyped-call]
    inputs = [ColSpec(image, "image", required=False), ColSpec(DataType.string, "path", required=False)]
    params = [ParamSpec("heatmap", DataType.boolean, False), ParamSpec("rule", DataType.string, default)]
    outputs = {
        "logit": DataType.double, "score": DataType.double, "decision": DataType.boolean, "threshold": DataType.double,
        "rule": DataType.string, "model_version": DataType.string,
    }  # fmt: skip
    columns = [ColSpec(kind, name) for name, kind in outputs.items()]
    heat = ColSpec(DataType.string, "heatmap", required=False)
    return ModelSignature(Schema([*inputs]), Schema([*columns, heat]), ParamSchema(params))


def measure_pointing(model: DefectNet, geometry: Geometry, test: Sequence[Sample]) -> tuple[Pointing | None, str]:
    """Return the pointing score of the heat maps on positive images of `test` with a mask, and a sentence on it.

    The score is None if no such image exists.
    """
    rows = [s for s in test if s.label == 1 and s.mask and s.mask.is_file() and s.image.is_file()]
    masks = [fit_mask(read_mask(sample.mask), geometry) for sample in rows if sample.mask]
    visible = [i for i, mask in enumerate(masks) if mask.any()]  # fitting can crop the defect
    if not visible:
        return None, "not measured: no file of a positive test image with a mask was found"
    pixels = load_pixels([rows[i].image for i in visible], geometry)
    score = pointing(heat_maps(model, pixels), [masks[i] for i in visible])
    return score, score.sentence()
