"""The error type for problems that a user can fix."""

import errno
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

_LONG = re.compile(r"\S{500,}")
"""A value that is too long to be read in a message."""


class InputError(ValueError):
    """A value, file or environment provided by the user cannot be used.

    The message is one sentence: the value, the allowed range and the fix. The command line prints it without a
    traceback and exits with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_LONG.sub(lambda word: f"{word[0][:150]}...{word[0][-50:]}", message))


def brief(error: BaseException) -> str:
    """Return the type and the first line of a library's error message."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}".rstrip(":. ")


_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FULL_TEXT = re.compile(
    r"no space left on device|disk is full|disk quota exceeded|file too large|not enough space on the disk"
    r"|PytorchStreamWriter failed|file write failed", re.IGNORECASE,
)  # fmt: skip
"""How SQLite, safetensors, PyTorch and other libraries say that a disk is full."""
_STORES = {"alembic", "mlflow", "optuna", "sqlalchemy", "sqlite3"}
"""Libraries that read and write runs and studies."""


def explain(error: BaseException) -> str | None:
    """Return one sentence for an error that a user can fix, None for a mistake in the code.

    These are an `InputError`, and refusals of the disk, the network and the tracking store.
    """
    if isinstance(error, InputError):
        return str(error)
    if full := next((each for each in causes(error) if is_disk_full(each)), None):
        return f"the disk is full ({_short(full)}); free some space and run the same command again, which resumes"
    if isinstance(error, OSError):
        return f"the system refused a file or connection ({_short(error)}); correct that and run the same command again"
    if type(error).__module__.partition(".")[0] in _STORES:
        return f"the tracking store refused a request ({_short(error)}); correct that and run the same command again"
    return None


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error says that no space is left for a file."""
    return (isinstance(error, OSError) and error.errno in _FULL) or bool(_FULL_TEXT.search(str(error)))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"


def did_you_mean(word: object, allowed: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" with the allowed word that is nearest to `word`, or "" if none is near."""
    nearest = get_close_matches(str(word), list(allowed), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
