"""What MLflow serves: images in, a decision for each out."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.store.artifact.models_artifact_repo import REGISTERED_MODEL_META_FILE_NAME
from PIL import Image
from scipy.special import expit

from inandout.classifier.heatmap import heat_maps
from inandout.classifier.resnet import load_classifier
from inandout.classifier.training import predict
from inandout.errors import InputError
from inandout.serving.request_images import prepare_rows
from inandout.serving.settings import Settings


class RefusedError(MlflowException):
    """A request that cannot be answered: status 400, and one sentence.

    MLflow's server writes the data of the request into the message of an error; what is sent is the sentence alone.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, error_code=INVALID_PARAMETER_VALUE)
        self.sentence = sentence

    def serialize_as_json(self) -> str:
        """The answer's body."""
        return json.dumps({"error_code": self.error_code, "message": self.sentence})


class Servable(PythonModel):
    """The classifier with its preparation, thresholds and heat maps."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read weights and settings."""
        settings = Path(context.artifacts["settings"])
        self.settings = Settings.model_validate_json(settings.read_text(encoding="utf-8"))
        self.model = load_classifier(Path(context.artifacts["weights"]))
        self.version = registered_version(settings.parents[1])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row an image: logit, score, decision, threshold, rule, model_version, and heatmap if asked for.

        Args:
            context: not needed.
            model_input: a row an image, see `prepare_rows`.
            params: `rule`, an operating point of the model; `heatmap`, whether to draw maps.

        Raises:
            RefusedError: something of the request cannot be used.
        """
        asked = params or {}
        try:
            point = self.settings.point(asked.get("rule") or self.settings.default)
            pixels = prepare_rows(model_input.to_dict("records"), self.settings.geometry)
        except InputError as error:
            raise RefusedError(str(error)) from error
        logits = predict(self.model, pixels)
        answer: dict[str, Any] = {
            "logit": logits, "score": expit(logits), "decision": logits >= point.threshold,
            "threshold": point.threshold, "rule": point.rule, "model_version": self.version,
        }  # fmt: skip
        if asked.get("heatmap"):
            answer["heatmap"] = [encode_map(heat) for heat in heat_maps(self.model, pixels)]
        return pd.DataFrame(answer)


def registered_version(folder: Path) -> str:
    """`name/version` where MLflow fetched the model from the registry and left a note; else the model's id."""
    note = folder / REGISTERED_MODEL_META_FILE_NAME
    if note.is_file():
        known = yaml.safe_load(note.read_text(encoding="utf-8"))
        return f"{known['model_name']}/{known['model_version']}"
    return str(yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8")).get("model_id", ""))


def encode_map(heat: np.ndarray) -> str:
    """A map (H, W) of 0..1 as grey PNG in base64, 0..255."""
    file = io.BytesIO()
    Image.fromarray(np.rint(heat * 255).astype(np.uint8)).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
