"""The kinds of error that a user, not a developer, has to act on."""

import errno

OF_THE_DISK = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.ENAMETOOLONG,
}  # fmt: skip
"""What a disk or a folder refuses, and a user can put right wherever it comes up."""


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


def refused(error: OSError) -> str:
    """What to do about an error of `OF_THE_DISK`."""
    place = error.filename or "standard output, or a file without a name"
    return (
        f"{place}: {error.strerror or error}. Free space there (df -h), change its owner, or choose another place "
        "(results=<folder>, data.root=<folder>); then start the same command again"
    )


def printable(text: str) -> str:
    """A text that may be shown on a terminal: control characters but line ends are written out, as in ``\\x1b``.

    What a file, a model or a library said may hold them, and a terminal obeys them.
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)
