"""Configurations of `promote`, `rollback` and `export`."""

from typing import Annotated

from pydantic import Field

from inandout.options import Fresh, StageConfig


class ExportConfig(StageConfig):
    """Options of `export`; give either `run` or `model`."""

    run: str = Field("", description="run id of the classify to export")
    model: str = Field("", description="or URI of a promoted model, models:/NAME@champion or models:/NAME/3")
    rule: str = Field(
        "",
        description="operating point of the threshold; with run any, for example fpr<=0.01, empty = validation; with "
        "model one of its points, empty = its default",
    )
    out: str = Field("classifier.onnx", pattern=r"\.onnx$", description="file to write, in addition to the artifact")
    rounds: int = Field(100, ge=10, le=10_000, description="timed predictions of each kind")
    fresh: Fresh = False


UNSTATED = "unknown: state it"
"""Default of `data_licence`."""


ModelName = Annotated[
    str,
    Field(pattern=r"^\w[\w .-]*$", max_length=100, description="name of the registered model: letters, digits, ' ._-'"),
]


class PromoteConfig(StageConfig):
    """Options of `promote`."""

    run: str = Field("", description="run id of a classify; empty = the run with the highest validation AP")
    points: str = Field(
        "validation,fpr<=0.05",
        description="operating points, separated by commas: recall>=0.95, fpr<=0.01, cost 50:1 (missed defect : false "
        "reject), validation (threshold of the run)",
    )
    defect_share: float | None = Field(
        None, gt=0, lt=1, description="share of defective parts for cost rules; none = share among validation parts"
    )
    data_licence: str = Field(
        UNSTATED, min_length=1, max_length=500, description="licence of the data, for the model card"
    )
    fresh: bool = Field(False, description="promote again even if a finished run has the same fingerprint")
    name: ModelName = "inandout"


class RollbackConfig(StageConfig):
    """Options of `rollback`."""

    name: ModelName = "inandout"
