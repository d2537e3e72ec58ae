"""The configuration of a stage as a flat list of options: for the command line, MLproject and a run's parameters.

A configuration holds parts: pydantic models that are defined beside the code that they configure. An option is a field
of the configuration or of one of its parts, at any depth.
"""

from functools import cache, reduce
from operator import getitem
from typing import Annotated, Any, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

Value = TypeVar("Value")

Fresh = Annotated[bool, Field(description="run again although a finished run has the same fingerprint")]


class Option(NamedTuple):
    """A field, and where it lies."""

    parts: tuple[str, ...]
    """Names of the fields that lead to the part that has it."""
    field: FieldInfo


class StageConfig(BaseModel):
    """Base class of the configuration of a stage. Every option has a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def options(cls) -> dict[str, Option]:
        """All options by name.

        Raises:
            TypeError: two parts have an option of the same name.
        """
        return _options(cls)

    @classmethod
    def from_flat(cls, **values: Any) -> Self:
        """Build a configuration from options; those that are not given have their defaults.

        Raises:
            ValueError: a value is not valid (pydantic's ValidationError), or there is no option of that name.
        """
        options = cls.options()
        nested: dict[str, Any] = {}
        for name, value in values.items():
            if name not in options:
                raise ValueError(f"{cls.__name__} has no option {name!r}; it has {', '.join(options)}")
            reduce(lambda place, part: place.setdefault(part, {}), options[name].parts, nested)[name] = value
        return cls.model_validate(nested)

    def flat(self) -> dict[str, Any]:
        """JSON-compatible values of all options."""
        values = self.model_dump(mode="json")
        return {name: reduce(getitem, option.parts, values)[name] for name, option in self.options().items()}

    def changed(self) -> dict[str, Any]:
        """JSON-compatible values of the options that do not have their defaults."""
        options = self.options()
        return {name: value for name, value in self.flat().items() if value != options[name].field.default}

    def with_options(self, **changes: Any) -> Self:
        """Copy with other values for some options; raises as `from_flat`."""
        return self.from_flat(**self.flat() | changes)

    def resolved(self) -> Self:
        """Copy in which every default that depends on other options is replaced by its value."""
        return self


@cache
def _options(config: type[BaseModel]) -> dict[str, Option]:
    found: dict[str, Option] = {}
    for name, field in config.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            inner = {key: Option((name, *option.parts), option.field) for key, option in _options(part).items()}
        else:
            inner = {name: Option((), field)}
        if twice := found.keys() & inner.keys():
            raise TypeError(f"{config.__name__}: two parts have an option {', '.join(sorted(twice))}")
        found |= inner
    return found


def known(value: Value | None) -> Value:
    """The value of an option of a resolved configuration."""
    assert value is not None, "resolve the configuration first"
    return value
