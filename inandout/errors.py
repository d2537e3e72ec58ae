"""The error type for problems that a user can fix."""


class InputError(ValueError):
    """A value, file or environment provided by the user cannot be used.

    The message is one sentence: the value, the allowed range and the fix. The command line prints it without a
    traceback and exits with status 2.
    """


def brief(error: Exception) -> str:
    """Return the type and the first line of a library's error message."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}".rstrip(":. ")
