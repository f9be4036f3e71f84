"""Errors that a user can cause, worded for a user.

Every message names what was given, what was expected and what to do. The command line prints it as one line
and exits with status 2; nothing below the command line catches it.
"""

import difflib
import errno
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in the input: one line saying what was given, what was expected, what to do."""


class PrivacyError(Exception):
    """An attempt to read a private record or to spend more than the budget; raised before any noise is drawn."""


def in_one_line(error: BaseException) -> str:
    """The kind of an error and the first line of its text, which may be empty.

    >>> in_one_line(ValueError("no"))
    'ValueError: no'
    >>> in_one_line(AssertionError())
    'AssertionError'
    """
    first, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first}".removesuffix(": ")


def disk_is_full(error: BaseException) -> bool:
    """Whether a file could not be written for want of room or of permission to write at all.

    >>> disk_is_full(OSError(errno.ENOSPC, "No space left on device"))
    True
    """
    # Libraries written in Rust, such as safetensors, put the system's number into the text.
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) or "os error 28" in str(error)


def unknown_name(kind: str, given: str, known: Iterable[str]) -> UserError:
    """Build the error for a name that is not in a list: the nearest known one, or the list where none is near.

    >>> print(unknown_name("method", "dp_sdg", ["dp_sgd", "public_only"]))
    unknown method 'dp_sdg': did you mean 'dp_sgd'?
    >>> print(unknown_name("method", "gan", ["dp_sgd", "public_only"]))
    unknown method 'gan': expected one of dp_sgd, public_only
    """
    near = difflib.get_close_matches(given, known := sorted(known), n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(known)}"
    return UserError(f"unknown {kind} '{given}': {hint}")
