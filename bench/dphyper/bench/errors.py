"""Errors that a user can cause, worded for a user.

Every message names what was given, what was expected and what to do. The command line prints it as one line
and exits with status 2; nothing below the command line catches it.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in the input: one line saying what was given, what was expected, what to do."""


class PrivacyError(Exception):
    """An attempt to read a private record or to spend more than the budget; raised before any noise is drawn."""


def unknown_name(kind: str, given: str, known: Iterable[str]) -> UserError:
    """Build the error for a name that is not in a list, with the nearest known one.

    >>> print(unknown_name("method", "dp_sdg", ["dp_sgd", "public_only"]))
    unknown method 'dp_sdg': did you mean 'dp_sgd'? Known: dp_sgd, public_only
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1)
    hint = f" did you mean '{near[0]}'?" if near else ""
    return UserError(f"unknown {kind} '{given}':{hint} Known: {', '.join(names)}")
