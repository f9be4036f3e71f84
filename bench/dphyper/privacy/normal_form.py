"""The form in which the accountants read an event: its Gaussian sums, and its selections among trials.

Events of one normal form get one ε, to the last digit: neither the nesting nor the order of the releases counts. The
form covers what the mechanisms of this package emit, and every other event is refused. Nothing here computes an ε.
"""

from collections import Counter
from typing import NamedTuple

import dp_accounting

from dphyper.core.errors import PrivacyError
from dphyper.privacy.budget import Relation

# One entry for each kind of sum, in sorted order: sampling probability, noise multiplier, number of sums.
Steps = tuple[tuple[float, float, int], ...]


class Selection(NamedTuple):
    """The best of a random number K of trials.

    Attributes:
        steps: The sums of one trial.
        mean: Expectation of K.
        shape: η of the law of K, as in `BestOfTrials`.
    """

    steps: Steps
    mean: float
    shape: float


# Each selection with the number of times that it was made.
Selections = tuple[tuple[Selection, int], ...]

NEIGHBORING_RELATIONS = {
    Relation.ADD_OR_REMOVE_ONE: dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    Relation.ZERO_OUT: dp_accounting.NeighboringRelation.REPLACE_SPECIAL,
    Relation.REPLACE_ONE: dp_accounting.NeighboringRelation.REPLACE_ONE,
}


def normal_form(event: dp_accounting.DpEvent) -> tuple[Steps, Selections] | None:
    """The sums of an event and its selections; None if the event is not private.

    Raises:
        PrivacyError: The event holds a mechanism without an accountant, or a selection inside a selection.

    >>> sampled = dp_accounting.PoissonSampledDpEvent(0.25, dp_accounting.GaussianDpEvent(2.0))
    >>> normal_form(dp_accounting.ComposedDpEvent([sampled, dp_accounting.SelfComposedDpEvent(sampled, 9)]))
    (((0.25, 2.0, 10),), ())
    """
    counts: Counter[tuple[float, float]] = Counter()
    selections: Counter[Selection] = Counter()
    stack = [(event, 1)]
    while stack:
        part, times = stack.pop()
        match part:
            case dp_accounting.NonPrivateDpEvent():
                return None
            case dp_accounting.NoOpDpEvent():
                pass
            case dp_accounting.ComposedDpEvent():
                stack += [(inner, times) for inner in part.events]
            case dp_accounting.SelfComposedDpEvent():
                stack.append((part.event, times * part.count))
            case dp_accounting.GaussianDpEvent():
                counts[1.0, part.noise_multiplier] += times
            case dp_accounting.PoissonSampledDpEvent(event=dp_accounting.GaussianDpEvent()):
                counts[part.sampling_probability, part.event.noise_multiplier] += times
            case dp_accounting.dp_event.RepeatAndSelectDpEvent():
                trial = normal_form(part.event)
                if trial is None:
                    return None
                steps, inner = trial
                if inner:
                    raise PrivacyError("no accountant here for a selection inside a selection")
                selections[Selection(steps, part.mean, part.shape)] += times
            case _:
                raise PrivacyError(f"no accountant here for the event {part}: expected (Poisson-sampled) Gaussians")
    if any(sigma <= 0 for _, sigma in counts):
        return None
    return tuple(sorted((q, sigma, count) for (q, sigma), count in counts.items())), tuple(sorted(selections.items()))
