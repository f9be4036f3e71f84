"""What a method declares to release, whoever wrote it.

`Method.mechanisms` may be anyone's code. What it returns is checked here once, for all audits; what it raises comes
through, for each audit has its own words for that.
"""

import math
from collections.abc import Mapping
from typing import Any

from dphyper.bench.catalog import METHODS
from dphyper.core.errors import UserError
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import Mechanism


def declared_releases(name: str, options: Mapping[str, Any], budget: Budget) -> tuple[Mechanism, ...]:
    """The releases that a registered method declares for options under a budget.

    Raises:
        UserError: The method or an option is unknown, or what is declared is no tuple of mechanisms.
        Exception: Whatever the method's own code raises.
    """
    kind = METHODS[name]
    found: object = kind.mechanisms(budget, kind.options_type.parse(name, options))
    if not isinstance(found, tuple) or not all(isinstance(part, Mechanism) for part in found):
        shown = " ".join(repr(found).split())[:60]
        raise UserError(f"`mechanisms` of method '{name}' returns {shown}: expected a tuple of mechanisms")
    return found


def attackable_releases(name: str, budget: Budget) -> tuple[Mechanism, ...]:
    """The releases of a method at its default options, where there is a claim that an audit can attack.

    Raises:
        UserError: The method claims no ε, releases nothing, or what it declares cannot be built.
    """
    if not METHODS[name].private or math.isinf(budget.epsilon):
        raise UserError(f"method '{name}' at epsilon = {budget.epsilon} claims no ε to audit: choose a private method")
    try:
        releases = declared_releases(name, {}, budget)
    except UserError:
        raise
    except Exception as error:  # of whatever kind: the code may be anyone's
        raise UserError(
            f"what method '{name}' declares to release cannot be built ({in_one_line(error)}): mend its `mechanisms`"
        ) from error
    if not releases:
        raise UserError(f"method '{name}' releases nothing of private records and claims no ε to audit")
    return releases


def in_one_line(error: Exception) -> str:
    """Kind and first line of an error.

    >>> in_one_line(ValueError("too small" + chr(10) + "by far"))
    'ValueError: too small'
    """
    first, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first}"
