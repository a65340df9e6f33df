"""The root of every error that Blurloop raises on purpose."""


class BlurloopError(Exception):
    """Something a user can mend.

    Messages say what is wrong with which value of which thing, what was expected, and what
    to do next. Entry points print the message as one line and exit with `exit_code`.
    """

    exit_code = 1
