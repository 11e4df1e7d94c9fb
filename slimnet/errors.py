"""The one exception that means: the input is wrong, and the message says what would do."""


class SlimnetError(Exception):
    """A mistake in what was asked for (a file, a width, a ratio), told in a sentence that names the way out.

    Command lines print it without a traceback and exit with status 2.

    Example:
        >>> try:
        ...     slimnet.load("none.pt")
        ... except slimnet.SlimnetError as error:
        ...     print(error)
        none.pt: no such file
    """
