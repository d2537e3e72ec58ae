"""Configurations of stages as flat lists of options, for the command line, MLproject and the parameters of a run.

A configuration consists of nested pydantic models, each defined beside the code that it configures. An option is a
field of a model at any depth.
"""

import math
import sys
from functools import cache, reduce
from operator import getitem
from typing import Annotated, Any, NamedTuple, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

Value = TypeVar("Value")

MAX_TEXT = 6000
"""Maximum number of characters of an option, as of a parameter in MLflow."""

Fresh = Annotated[bool, Field(description="run again even if a finished run has the same fingerprint")]


class Option(NamedTuple):
    """A field and its path."""

    parts: tuple[str, ...]
    """Names of the fields that lead to the model that contains it."""
    field: FieldInfo


class StageConfig(BaseModel):
    """Base class of stage configurations. Every option has a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def options(cls) -> dict[str, Option]:
        """Return all options by name.

        Raises:
            TypeError: two models have an option of the same name.
        """
        return _options(cls)

    @classmethod
    def from_flat(cls, **values: Any) -> Self:
        """Build a configuration from options; missing options have their defaults.

        Raises:
            ValueError: a value is invalid (pydantic's ValidationError), or an option does not exist.
        """
        options = cls.options()
        nested: dict[str, Any] = {}
        for name, value in values.items():
            if name not in options:
                raise ValueError(f"{cls.__name__} has no option {name!r}; it has {', '.join(options)}")
            place = reduce(lambda place, part: place.setdefault(part, {}), options[name].parts, nested)
            place[name] = _normal(name, value, options[name].field)
        return cls.model_validate(nested)

    def flat(self) -> dict[str, Any]:
        """Return JSON-compatible values of all options."""
        values = self.model_dump(mode="json")
        return {name: reduce(getitem, option.parts, values)[name] for name, option in self.options().items()}

    def changed(self) -> dict[str, Any]:
        """Return JSON-compatible values of options that differ from their defaults."""
        options = self.options()
        return {name: value for name, value in self.flat().items() if value != options[name].field.default}

    def with_options(self, **changes: Any) -> Self:
        """Return a copy with changed options; raises as `from_flat`."""
        return self.from_flat(**self.flat() | changes)

    def resolved(self) -> Self:
        """Return a copy in which defaults that depend on other options are replaced by their values."""
        return self

    def summary(self) -> list[str]:
        """Return lines that say what the stage is about to do, for stages that take minutes; `self` is resolved."""
        return []


def _normal(name: str, value: Any, field: FieldInfo) -> Any:
    """Return the value of an option, 0.0 for -0.0.

    Raises:
        ValueError: a text is too long or cannot be stored, or a number is not finite or too small to calculate with.
    """
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise ValueError(f"{name} has {len(value):,} characters; at most {MAX_TEXT:,} are allowed")
        if wrong := next((char for char in value if char == "\0" or "\ud800" <= char <= "\udfff"), ""):
            raise ValueError(f"{name} = {value[:100]!r}: the character {wrong!r} is not text; remove it")
    if float not in (field.annotation, *get_args(field.annotation)) or isinstance(value, bool):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return value  # pydantic says what is allowed
    if not math.isfinite(number) or 0 < abs(number) < sys.float_info.min:
        raise ValueError(f"{name} = {value}: is infinite, no number, or too close to 0; give an ordinary number")
    return value if number else 0.0


@cache
def _options(config: type[BaseModel]) -> dict[str, Option]:
    found: dict[str, Option] = {}
    for name, field in config.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            inner = {key: Option((name, *option.parts), option.field) for key, option in _options(part).items()}
        else:
            inner = {name: Option((), field)}
        if duplicates := found.keys() & inner.keys():
            raise TypeError(f"{config.__name__}: two models have an option {', '.join(sorted(duplicates))}")
        found |= inner
    return found


def known(value: Value | None) -> Value:
    """Return the value of an option of a resolved configuration, which is not None."""
    assert value is not None, "resolve the configuration first"
    return value
