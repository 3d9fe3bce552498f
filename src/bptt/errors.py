"""What a user's input can do wrong, in one class."""


class InputError(ValueError):
    """Input that cannot be used: one line that says what was got, what was expected and what to do.

    The command line prints that line and leaves with exit code 2.
    """
