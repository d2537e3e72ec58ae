"""The MLflow model: it takes images and returns a decision for each."""

import base64
import io
import json
import sys
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

from inandout.classifier.backbone import load_classifier
from inandout.classifier.heatmap import heat_maps
from inandout.classifier.training import predict
from inandout.errors import InputError
from inandout.serving.guard import SERVER, guard_server
from inandout.serving.request_images import prepare_rows
from inandout.serving.settings import Settings


class RefusedError(MlflowException):
    """An invalid request: status 400 and one sentence.

    MLflow's server adds the request data to error messages; the response contains the sentence alone.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, error_code=INVALID_PARAMETER_VALUE)
        self.sentence = sentence

    def serialize_as_json(self) -> str:
        """Return the body of the response."""
        return json.dumps({"error_code": self.error_code, "message": self.sentence})


class Servable(PythonModel):
    """A classifier with its preprocessing, operating points and heat maps."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load weights and settings; in MLflow's server, guard its application."""
        if SERVER in sys.modules:
            guard_server()
        settings = Path(context.artifacts["settings"])
        self.settings = Settings.model_validate_json(settings.read_text(encoding="utf-8"))
        self.model = load_classifier(Path(context.artifacts["weights"]))
        self.version = registered_version(settings.parents[1])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return one row per image: logit, score, decision, threshold, rule, model_version, and optionally heatmap.

        Args:
            context: unused.
            model_input: one row per image, see `prepare_rows`.
            params: `rule`, an operating point of the model; `heatmap`, whether to return heat maps.

        Raises:
            RefusedError: the request is invalid.
        """
        options = params or {}
        try:
            point = self.settings.point(options.get("rule") or self.settings.default)
            pixels = prepare_rows(model_input.to_dict("records"), self.settings.geometry)
        except InputError as error:
            raise RefusedError(str(error)) from error
        logits = predict(self.model, pixels)
        response: dict[str, Any] = {
            "logit": logits, "score": expit(logits), "decision": logits >= point.threshold,
            "threshold": point.threshold, "rule": point.rule, "model_version": self.version,
        }  # fmt: skip
        if options.get("heatmap"):
            response["heatmap"] = [encode_map(heat) for heat in heat_maps(self.model, pixels)]
        return pd.DataFrame(response)


def registered_version(folder: Path) -> str:
    """Return `name/version` if MLflow downloaded the model from the registry, otherwise the model ID."""
    file = folder / REGISTERED_MODEL_META_FILE_NAME
    if file.is_file():
        metadata = yaml.safe_load(file.read_text(encoding="utf-8"))
        return f"{metadata['model_name']}/{metadata['model_version']}"
    return str(yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8")).get("model_id", ""))


def encode_map(heat: np.ndarray) -> str:
    """Encode a heat map (H, W) in 0..1 as an 8-bit grey PNG in base64."""
    file = io.BytesIO()
    Image.fromarray(np.rint(heat * 255).astype(np.uint8)).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
