"""The kinds of error that a user, not a developer, has to act on."""


class UserError(Exception):
    """Something the user can put right.

    The message names the offending value, what is allowed, and the command or setting that fixes it.
    The command line prints it without a traceback and exits with status 2.
    """


class VideoError(UserError):
    """One video cannot be used.

    A run stores it as the reason of that video's failed answers and goes on with the next video.
    """


class QuestionError(UserError):
    """One question that cannot be answered as asked: it is stored as failed with this reason, and the rest goes on."""


def printable(text: str) -> str:
    """A text that may be shown on a terminal: control characters but line ends are written out, as in ``\\x1b``.

    What a file, a model or a library said may hold them, and a terminal obeys them.
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)
