"""Empirical lower bounds on ε: attack the mechanisms of a method and see how much they give away.

This is a white-box canary audit. Two neighbouring data sets differ as much as the clip norm allows. Both are released
many times through `PrivateData`, by every mechanism that the method declares, one after the other in one ledger: the
claim of the whole method is attacked, and not that of a part. An attacker who knows both sets guesses which one it was,
and the error rates of the guesses bound ε from below. The score is the log-likelihood ratio of everything that was
released; no attack on these numbers beats it. A likelihood in real numbers does not see the last bits of a number;
`dphyper.audits.bits` looks at those.

What a method does before and after its releases is attacked by `dphyper.audits.whole_run`. Of a selection among trials,
the releases of one trial are attacked; that only the best trial is seen, and what this costs, is accounted and not
attacked. An audit can show that a claim is false; it cannot show that it is true.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dphyper.audits.bounds import Scores, clopper_pearson_lower_bound, gdp_lower_bound, require_enough
from dphyper.core.errors import UserError
from dphyper.privacy.accounting import epsilon_of
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.mechanisms import (
    BestOfTrials,
    GaussianMechanism,
    Mechanism,
    NoisyHistogram,
    OneShotMean,
    PoissonGradientSteps,
)
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData

NUM_RECORDS = 16  # of each data set; all but the canary contribute zero and hide nobody
# A sum takes about a millisecond, most of it for the checks of `PrivateData`: 2 × 10,000 take half a minute or so.
SUMS = 10_000  # from each data set, if nothing else is asked for
MOST_DRAWS, FEWEST_DRAWS = 20_000, 1_000  # limits on what `SUMS` gives; too few scores bound nothing


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an attack showed.

    Attributes:
        claimed_epsilon: ε of the ledger of one release of everything, at ``delta``.
        delta: δ of the claim and of both bounds.
        gdp_epsilon: Lower bound on ε from a Gaussian trade-off curve, at ``confidence``.
        clopper_pearson_epsilon: Lower bound on ε that assumes nothing, at ``confidence``.
        confidence: Probability with which each bound holds, taken alone.
        draws: Releases from each of the two data sets.
        scores: The attacker's scores without and with the canary, for a plot.
        seconds: Wall time.
    """

    claimed_epsilon: float
    delta: float
    gdp_epsilon: float
    clopper_pearson_epsilon: float
    confidence: float
    draws: int
    scores: tuple[Scores, Scores]
    seconds: float

    def __str__(self) -> str:
        return (
            f"claimed ε = {self.claimed_epsilon:.3f} at δ = {self.delta:g}; audited ε ≥ {self.gdp_epsilon:.3f} "
            f"(Gaussian trade-off curve), ε ≥ {self.clopper_pearson_epsilon:.3f} (Clopper-Pearson, no assumption), "
            f"each at {self.confidence:.0%} confidence from 2 × {self.draws} releases in {self.seconds:.0f} s"
        )


def attacked_parts(mechanisms: Sequence[Mechanism]) -> tuple[GaussianMechanism, ...]:
    """The releases that are attacked: all that are given; of a selection, those of one trial."""
    parts: list[GaussianMechanism] = []
    for mechanism in mechanisms:
        parts.extend(mechanism.trial if isinstance(mechanism, BestOfTrials) else (mechanism,))
    return tuple(parts)


def audit_mechanisms(
    mechanisms: Sequence[GaussianMechanism],
    budget: Budget,
    *,
    dimension: int,
    noise: NoiseSource,
    n: int = NUM_RECORDS,
    draws: int = 0,
    confidence: float = 0.95,
) -> Audit:
    """Audit releases, one after the other, by a canary whose contribution lies at the clip norm in each.

    The GDP bound assumes a Gaussian trade-off curve; that of Poisson-sampled steps is Gaussian only in the limit of
    many steps.

    Args:
        mechanisms: Calibrated, as a method uses them together; at least one.
        budget: Of all of them together; no release may bring the ledger above it.
        dimension: Numbers of a record's contribution.
        noise: As in the run that is audited.
        n: Records in each data set; all but the canary contribute zero. δ must be below 1/n.
        draws: Releases of everything from each data set; 0 for as many as take about half a minute.
        confidence: Of each bound.

    Raises:
        UserError: There is no release, or one without noise, or too little to look at.
    """
    if not mechanisms or not all(mechanism.noise_multiplier for mechanism in mechanisms):
        raise UserError("no release with noise: there is no claim to audit")
    begin = time.perf_counter()
    steps = sum(mechanism.steps for mechanism in mechanisms)
    draws = draws or min(max(SUMS // steps, FEWEST_DRAWS), MOST_DRAWS)
    require_enough(dimension=dimension, draws=draws)
    canary = torch.zeros(dimension, dtype=torch.float64)
    canary[0] = 2 * max(mechanism.l2_clip_norm for mechanism in mechanisms)
    out, with_canary = (
        np.fromiter((_log_ratio(records, mechanisms, budget, n, noise) for _ in range(draws)), np.float64, draws)
        for records in canary_neighbours(canary, n, budget.relation)
    )
    return Audit(
        claimed_epsilon=epsilon_of([m.event() for m in mechanisms], budget.delta, budget.relation),
        delta=budget.delta,
        gdp_epsilon=gdp_lower_bound(out, with_canary, budget.delta, confidence=confidence),
        clopper_pearson_epsilon=clopper_pearson_lower_bound(out, with_canary, budget.delta, confidence=confidence),
        confidence=confidence,
        draws=draws,
        scores=(out, with_canary),
        seconds=time.perf_counter() - begin,
    )


def canary_neighbours(canary: Tensor, n: int, relation: Relation) -> tuple[Tensor, Tensor]:
    """Two neighbouring data sets of zero records, without and with the canary.

    Under replace-one the canary replaces its negative. The second data set has n records.

    >>> [len(x) for x in canary_neighbours(torch.ones(3), 5, Relation.ADD_OR_REMOVE_ONE)]
    [4, 5]
    """
    rest = canary.new_zeros(n - 1, *canary.shape)
    null = {
        Relation.ADD_OR_REMOVE_ONE: canary.new_zeros(0, *canary.shape),
        Relation.ZERO_OUT: torch.zeros_like(canary)[None],
        Relation.REPLACE_ONE: -canary[None],
    }[relation]
    return torch.cat([rest, null]), torch.cat([rest, canary[None]])


def _log_ratio(
    records: Tensor, mechanisms: Sequence[GaussianMechanism], budget: Budget, n: int, noise: NoiseSource
) -> float:
    """Log-likelihood ratio of the canary, of all that one run of the mechanisms releases from these records."""
    private = PrivateData(records, n=n, ledger=Ledger(budget), noise=noise)
    ratio = 0.0
    for number, mechanism in enumerate(mechanisms):
        count = mechanism.count_coordinate(budget.relation)
        norm, clip = mechanism.record_norm(budget.relation), mechanism.l2_clip_norm
        for sum_k in _released_sums(private, mechanism, f"audit {number + 1}"):
            # How far the sum lies in the direction of the canary, in units of what the canary adds. All other records
            # raise the count, too.
            x = float(sum_k[0]) * clip / norm**2
            if count:
                x += (float(sum_k[-1]) - (n - 1) * count) * count / norm**2
            ratio += _evidence(x, 1.0, mechanism)
            if budget.relation is Relation.REPLACE_ONE:
                ratio -= _evidence(x, -1.0, mechanism)
    return ratio


def _evidence(x: float, shift: float, mechanism: GaussianMechanism) -> float:
    """Log density of (1-q) N(0, σ²) + q N(shift, σ²) against N(0, σ²)."""
    q, sigma = mechanism.sampling_prob, mechanism.noise_multiplier or 0.0
    ratio = (x * shift - shift**2 / 2) / sigma**2
    return float(np.logaddexp(math.log1p(-q) if q < 1 else -math.inf, math.log(q) + ratio))


def _released_sums(private: PrivateData, mechanism: GaussianMechanism, role: str) -> list[Tensor]:
    """The noisy sums behind what the method would get, with the count where there is one."""
    match mechanism:
        case OneShotMean():
            private.release_mean(_itself, mechanism, role=role)
            return [torch.tensor(private.ledger.output(role, mechanism), dtype=torch.float64)]
        case NoisyHistogram():
            return [private.release_histogram(_itself, mechanism, role=role)]
        case PoissonGradientSteps():
            scale = mechanism.sampling_prob * private.n
            return [mean * scale for mean in private.gradient_steps(_itself, mechanism, role=role)]
    raise UserError(f"{type(mechanism).__name__} has no audit: say in dphyper.audits.mechanism how it is released")


def _itself(records: Tensor, rng: torch.Generator) -> Tensor:
    return records
