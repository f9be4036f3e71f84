"""`PrivateData.best_of`: how many trials count, what a trial may do, and what leaves it."""

import dataclasses
import itertools
import math
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dphyper.core.errors import PrivacyError, UserError
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.mechanisms import BestOfTrials, NoisyHistogram, OneShotMean, PoissonGradientSteps
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData


def budget(epsilon: float = 1.0, relation: Relation = Relation.ADD_OR_REMOVE_ONE) -> Budget:
    return Budget(epsilon=epsilon, delta=1e-5, relation=relation)


def votes(sigma: float | None = None) -> NoisyHistogram:
    return NoisyHistogram(noise_multiplier=sigma)


def gradients(q: float = 1.0, steps: int = 30, sigma: float | None = None) -> PoissonGradientSteps:
    return PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=q, steps=steps, noise_multiplier=sigma)


def best(*trial: Any, mean: float = 10.0, shape: float = 1.0) -> BestOfTrials:
    return BestOfTrials(trial=trial or (votes(),), mean_trials=mean, shape=shape)


def calibrated(trials: BestOfTrials, at: Budget | None = None) -> BestOfTrials:
    (mechanism,) = calibrate(at or budget(), trials)
    return mechanism


def door(epsilon: float = 1.0, *, noise: NoiseSource | None = None, ledger: Ledger | None = None) -> PrivateData:
    return PrivateData(
        torch.ones(50, 1), n=50, ledger=ledger or Ledger(budget(epsilon)), noise=noise or NoiseSource.os()
    )


@pytest.mark.parametrize("shape", [1.0, 0.0, math.inf])
def test_the_number_of_trials_has_the_law_that_was_charged(shape: float) -> None:
    """K is a function of one secret uniform number: evenly spaced ones give every K its probability, to one in 64."""
    mechanism, points = calibrated(best(mean=4.0, shape=shape)), 64
    counts: Counter[int] = Counter()
    for index in range(points):
        word = int((index + 0.5) / points * 2**64)
        noise = NoiseSource(lambda n, w=word: w.to_bytes(8, "little") if n == 8 else bytes(n), is_reproducible=False)
        numbers = itertools.count(1)
        # Each trial scores higher than the one before, so the best is the last that counts.
        best_one = door(noise=noise).best_of(lambda p, r, n=numbers: (next(n),) * 2, mechanism, role="choice")
        counts[best_one or 0] += 1
        assert next(numbers) == mechanism.most_trials + 1  # all are run, however many count

    def misfit(law: BestOfTrials) -> float:
        return max(abs(counts[k] - points * p) for k, p in enumerate(law.probabilities()))

    assert misfit(mechanism) <= 1
    assert misfit(dataclasses.replace(mechanism, mean_trials=8.0)) > 2
    assert misfit(dataclasses.replace(mechanism, shape=3.0 if shape < 3 else 0.0)) > 2


def test_the_number_of_trials_is_drawn_afresh() -> None:
    mechanism = calibrated(best(mean=4.0))

    def number() -> int | None:
        torch.manual_seed(0)
        numbers = itertools.count(1)
        return door().best_of(lambda private, rng: (next(numbers),) * 2, mechanism, role="choice")

    assert len({number() for _ in range(30)}) > 2
    assert len({mechanism.draw(0.5) for _ in range(30)}) == 1


def score(private: PrivateData, mechanism: BestOfTrials) -> float:
    part = mechanism.trial[0]
    assert isinstance(part, NoisyHistogram)
    return float(private.release_histogram(lambda x, rng: x, part, role="score"))


def test_only_the_best_trial_leaves_and_a_poisson_number_of_none_leaves_nothing() -> None:
    mechanism, scores = calibrated(best(mean=5.0, shape=1.0)), []

    def trial(private: PrivateData, rng: torch.Generator) -> tuple[int, float]:
        scores.append(score(private, mechanism))
        return len(scores) - 1, scores[-1]

    best_of_counted = door().best_of(trial, mechanism, role="choice")
    assert best_of_counted in [int(np.argmax(scores[:counted])) for counted in range(1, len(scores) + 1)]
    assert len(scores) == mechanism.most_trials
    # u = 0: no trial of a Poisson number counts, one of the others.
    nobody = NoiseSource(lambda count: bytes(count) if count == 8 else os.urandom(count), is_reproducible=False)
    empty = calibrated(best(mean=5.0, shape=math.inf))
    assert door(noise=nobody).best_of(lambda private, rng: (0, 1.0), empty, role="choice") is None
    with pytest.raises(UserError, match="the score of a trial is NaN"):
        door(noise=nobody).best_of(lambda private, rng: (0, math.nan), mechanism, role="choice")


def test_a_selection_prefers_what_scores_higher() -> None:
    mechanism = calibrated(best(mean=10.0, shape=math.inf), budget(100.0))

    def trial(private: PrivateData, rng: torch.Generator) -> tuple[int, float]:
        candidate = int(torch.randint(3, (1,), generator=rng))
        part = mechanism.trial[0]
        assert isinstance(part, NoisyHistogram)
        return candidate, float(private.release_histogram(lambda x, rng: x * candidate / 2, part, role="score"))

    chosen = Counter(door(100.0).best_of(trial, mechanism, role="choice") for _ in range(30))
    assert chosen[2] > 20


def overspend_twice(private: PrivateData, mechanism: BestOfTrials) -> object:
    private.release_histogram(lambda x, rng: x, mechanism.trial[0], role="a")  # type: ignore[arg-type]
    return private.release_histogram(lambda x, rng: x, mechanism.trial[0], role="b")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "spend",
    [
        overspend_twice,
        lambda private, mechanism: private.release_histogram(lambda x, rng: x, votes(1.0), role="a"),
        # Less noise than charged, or more steps; also what would be cheaper, for it was not described.
        lambda private, mechanism: private.release_mean(
            lambda x, rng: x, OneShotMean(noise_multiplier=500.0), role="a"
        ),
        lambda private, mechanism: private.gradient_steps(lambda x, rng: x, gradients(0.1, 4, 500.0), role="a"),
        lambda private, mechanism: private.best_of(lambda p, r: (0, 0.0), mechanism, role="a"),
    ],
)
def test_a_trial_that_asks_for_more_than_was_charged_is_refused(
    spend: Callable[[PrivateData, BestOfTrials], object],
) -> None:
    mechanism = calibrated(best())
    with pytest.raises(PrivacyError, match=r"each once; it may not draw|is charged already"):
        door().best_of(lambda private, rng: (spend(private, mechanism), 0.0), mechanism, role="choice")


def test_a_trial_gets_what_was_described_and_no_record() -> None:
    mechanism = calibrated(best(gradients(steps=3), votes()))

    def trial(private: PrivateData, rng: torch.Generator) -> tuple[Tensor, float]:
        with pytest.raises(PrivacyError, match="private data do not give"):
            len(private)
        steps, part = mechanism.trial
        sums = list(private.gradient_steps(lambda x, rng: x, steps, role="gradient"))  # type: ignore[arg-type]
        return sums[-1], float(private.release_histogram(lambda x, rng: x, part, role="score"))  # type: ignore[arg-type]

    private = door()
    assert private.best_of(trial, mechanism, role="choice") is not None
    (charge,) = private.ledger.charges
    assert (charge.role, charge.complete, charge.output) == ("choice", True, None)
    assert private.ledger.spent() == pytest.approx(1.0, rel=1e-3)


def test_trials_share_no_randomness_and_none_comes_from_a_seed() -> None:
    seen: list[tuple[float, float]] = []

    def trial(private: PrivateData, rng: torch.Generator) -> tuple[None, float]:
        seen.append((float(torch.rand(1, generator=rng)), score(private, mechanism)))
        return None, 0.0

    mechanism = calibrated(best(mean=30.0, shape=math.inf))
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        door().best_of(trial, mechanism, role="choice")
    for numbers in zip(*seen, strict=True):
        assert len(set(numbers)) == len(seen)


def test_nothing_is_drawn_beyond_the_budget() -> None:
    drawn: list[int] = []
    noise = NoiseSource(lambda count: drawn.append(count) or bytes(count), is_reproducible=False)
    ledger = Ledger(budget(1.0))
    private = door(noise=noise, ledger=ledger)
    with pytest.raises(PrivacyError, match="would bring the run to"):
        private.best_of(lambda p, r: (0, 0.0), calibrated(best(), budget(2.0)), role="choice")
    with pytest.raises(PrivacyError, match="no noise_multiplier"):
        private.best_of(lambda p, r: (0, 0.0), best(), role="choice")
    assert not drawn
    assert not ledger.charges
