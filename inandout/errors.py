"""The one error a user is meant to read."""


class InputError(ValueError):
    """Something given from outside cannot be used.

    The message is one sentence for a person: what was given, what is allowed, what to do. The command line prints it
    without a traceback and exits with 2.
    """


def brief(error: Exception) -> str:
    """Kind and first line of what a library says, which may be a page."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}".rstrip(":. ")
