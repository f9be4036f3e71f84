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
    """Build the error for a name that is not in a list: the nearest known one, or the list where none is near.

    >>> print(unknown_name("method", "dp_sdg", ["dp_sgd", "public_only"]))
    unknown method 'dp_sdg': did you mean 'dp_sgd'?
    >>> print(unknown_name("method", "gan", ["dp_sgd", "public_only"]))
    unknown method 'gan': expected one of dp_sgd, public_only
    """
    near = difflib.get_close_matches(given, known := sorted(known), n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(known)}"
    return UserError(f"unknown {kind} '{given}': {hint}")
