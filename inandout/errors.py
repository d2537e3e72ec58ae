"""The error type for problems that a user can fix."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """A value, file or environment provided by the user cannot be used.

    The message is one sentence: the value, the allowed range and the fix. The command line prints it without a
    traceback and exits with status 2.
    """


def brief(error: BaseException) -> str:
    """Return the type and the first line of a library's error message."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}".rstrip(":. ")


def did_you_mean(word: object, allowed: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" with the allowed word that is nearest to `word`, or "" if none is near."""
    nearest = get_close_matches(str(word), list(allowed), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
