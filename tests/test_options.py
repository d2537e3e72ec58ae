"""Nested models of a configuration, and its flat options."""

from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inandout.entry_points import STAGES
from inandout.options import StageConfig


class Inner(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float = Field(0.1, ge=0, description="the least")
    high: float = Field(0.9, le=1, description="the greatest")

    @model_validator(mode="after")
    def _check(self) -> "Inner":
        if self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}")
        return self


class Outer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    limits: Inner = Inner()
    outer: str = Field("o", description="has the name of a part")


class Config(StageConfig):
    outer: Outer = Outer()
    number: Annotated[int, Field(ge=0, description="a number")] = 3


@pytest.mark.parametrize("low", ["-0.0", "-0", -0.0, "0", "-0e5"])
def test_negative_zero_is_zero(low: object) -> None:
    config = Config.from_flat(low=low)
    assert str(config.outer.limits.low) == "0.0"
    assert config.flat() == Config.from_flat(low=0).flat()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("low", "1e-320", "too close to 0"), ("high", "nan", "no number"), ("high", float("-inf"), "is infinite"),
        ("outer", "a\0b", "the character '.x00' is not text"), ("outer", "\udcff", "is not text; remove it"),
        ("outer", "x" * 6001, "has 6,001 characters; at most 6,000"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_stored_or_calculated_with_is_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config.from_flat(**{name: value})


def test_options_are_the_fields_of_all_nested_models() -> None:
    assert {name: option.parts for name, option in Config.options().items()} == {
        "low": ("outer", "limits"), "high": ("outer", "limits"), "outer": ("outer",), "number": ()
    }  # fmt: skip
    assert Config.options()["number"].field.description == "a number"


def test_from_flat_inverts_flat() -> None:
    config = Config.from_flat(high=0.5, outer="x", number=7)
    assert config == Config(outer=Outer(limits=Inner(high=0.5), outer="x"), number=7)
    assert config.flat() == {"low": 0.1, "high": 0.5, "outer": "x", "number": 7}
    assert Config.from_flat(**config.flat()) == config
    assert config.with_options(low=0.2).flat() == config.flat() | {"low": 0.2}
    assert config.changed() == {"high": 0.5, "outer": "x", "number": 7}
    assert Config().changed() == {}


def test_nested_models_check_their_values() -> None:
    with pytest.raises(ValidationError, match=r"low = 0\.6 is above high = 0\.5"):
        Config.from_flat(low=0.6, high=0.5)
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        Config().with_options(high=2)


@pytest.mark.parametrize("name", ["limits", "lo"])
def test_an_unknown_name_raises_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=f"has no option '{name}'; it has low, high, outer, number"):
        Config.from_flat(**{name: 1})


def test_two_models_with_the_same_option_raise_an_error() -> None:
    class Other(BaseModel):
        high: float = 1.0

    class Clash(StageConfig):
        inner: Inner = Inner()
        other: Other = Other()

    with pytest.raises(TypeError, match="Clash: two models have an option high"):
        Clash.options()


@pytest.mark.parametrize("name", STAGES)
def test_every_option_of_every_entry_point_has_a_default_and_a_description(name: str) -> None:
    config = STAGES[name].config
    assert config().flat() == {key: option.field.default for key, option in config.options().items()}
    assert all(option.field.description for option in config.options().values())
