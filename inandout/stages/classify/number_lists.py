"""Comma-separated lists of numbers as option types."""

from typing import Annotated

from pydantic import AfterValidator


def _seeds(text: str) -> str:
    return _numbers(text, 0, 2**32 - 1, "seed")


def _n_augs(text: str) -> str:
    return _numbers(text, 1, 100_000, "number of synthetic positives")


def _n_shots(text: str) -> str:
    return _numbers(text, 1, 100_000, "number of real positives") if text else text


def _numbers(text: str, least: int, most: int, what: str) -> str:
    for part in text.split(","):
        if not part.strip().isdigit() or not least <= int(part) <= most:
            raise ValueError(f"{part!r} is not a {what}; give numbers from {least} to {most}, separated by commas")
    return without_repeats([str(int(part)) for part in text.split(",")])


def without_repeats(names: list[str]) -> str:
    """Join `names` by commas; raise ValueError if one repeats.

    A repeated value would reuse the finished run and count its result twice.
    """
    if len(set(names)) < len(names):
        raise ValueError(f"{','.join(names)} contains a duplicate; give each value once")
    return ",".join(names)


Seeds = Annotated[str, AfterValidator(_seeds)]
"""Distinct seeds, separated by commas."""

NAugs = Annotated[str, AfterValidator(_n_augs)]
"""Distinct numbers of synthetic positives, separated by commas."""

NShots = Annotated[str, AfterValidator(_n_shots)]
"""Distinct numbers of real positives, separated by commas; may be empty."""
