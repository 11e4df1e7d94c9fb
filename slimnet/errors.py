"""The exception for mistakes of the user: its message says what to do instead."""


class SlimnetError(Exception):
    """A mistake in the input (a file, a width, a ratio); the message is one sentence that says what to do.

    Command lines print it without a traceback and exit with status 2.

    Example:
        >>> try:
        ...     slimnet.load("none.pt")
        ... except slimnet.SlimnetError as error:
        ...     print(error)
        none.pt: no such file
    """
