"""The one error a user is meant to read."""


class InputError(ValueError):
    """Something given from outside cannot be used.

    The message is one sentence for a person: what was given, what is allowed, what to do. The command line prints it
    without a traceback and exits with 2.
    """
