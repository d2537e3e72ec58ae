"""Settings of a served classifier, stored as one JSON file in the model."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from inandout.data.config import Geometry
from inandout.errors import InputError
from inandout.evaluation.operating_points import OperatingPoint


class Settings(BaseModel):
    """Preprocessing, operating points and origin of a served classifier."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    geometry: Geometry
    """Geometry of the training images."""
    points: tuple[OperatingPoint, ...] = Field(min_length=1)
    default: str
    """Rule used if a request names none."""
    run: str
    """ID of the `classify` run."""
    code: str
    """Fingerprint of the package version that logged the model."""
    heat_maps: str
    """Measured accuracy of the heat maps, or why it was not measured."""

    @model_validator(mode="after")
    def _default_exists(self) -> "Settings":
        self.point(self.default)
        return self

    def point(self, rule: str) -> OperatingPoint:
        """Return the operating point of a rule.

        Raises:
            InputError: the model has no such rule; the message lists its rules.
        """
        matches = [point for point in self.points if point.rule == rule]
        if not matches:
            known = ", ".join(point.rule for point in self.points)
            raise InputError(f"rule {rule[:100]!r} is not an operating point of this model; use one of {known}")
        return matches[0]
