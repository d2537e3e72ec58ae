"""What a served classifier knows besides its weights: one JSON file in the model."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from inandout.data.geometry import Geometry
from inandout.errors import InputError
from inandout.evaluation.operating_points import OperatingPoint


class Settings(BaseModel):
    """Preparation of images, thresholds, and where the model comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    geometry: Geometry
    """As in training."""
    points: tuple[OperatingPoint, ...] = Field(min_length=1)
    default: str
    """The rule that decides where a request names none."""
    run: str
    """The `classify` run that trained it."""
    code: str
    """Fingerprint of the package that logged it."""
    heat_maps: str
    """How far heat maps are to be trusted, or why that is not known."""

    @model_validator(mode="after")
    def _knows_its_default(self) -> "Settings":
        self.point(self.default)
        return self

    def point(self, rule: str) -> OperatingPoint:
        """The operating point of a rule.

        Raises:
            InputError: there is none; names those there are.
        """
        found = [point for point in self.points if point.rule == rule]
        if not found:
            known = ", ".join(point.rule for point in self.points)
            raise InputError(f"rule {rule[:100]!r} is not an operating point of this model; it has {known}")
        return found[0]
