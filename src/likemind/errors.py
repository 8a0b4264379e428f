"""What the user can mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class LikemindError(ValueError):
    """A mistake that the user can mend.

    The message is one sentence that names the file, row or argument, and the mend. The command line prints it without a
    traceback and exits with code 2; every other exception is ours, and exits with code 1.
    """


def few(names: Sequence[str], most: int = 5) -> str:
    """Return the first names as an error shows them: quoted, with a sign that there are more."""
    return ", ".join(map(repr, names[:most])) + (", …" if len(names) > most else "")


def first_line(error: Exception) -> str:
    """Return the first line of what an exception says, or its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def shown(text: str) -> str:
    r"""Return a text as one line: what cannot be printed, such as a line break in a file's name, is escaped.

    Example:
        >>> print(shown("cats\ndogs.png"))
        cats\ndogs.png
    """
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def interrupted(error: BaseException | None) -> bool:
    """Say whether an exception is a Ctrl-C or came of one: a class that is just being made wraps it in another.

    Example:
        >>> interrupted(KeyboardInterrupt()), interrupted(ValueError())
        (True, False)
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
