"""The ledger charges before anything is drawn, survives on disk, and never pays twice for one release."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dphyper.core.errors import PrivacyError, UserError
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.json_form import event_from_json, event_json
from dphyper.privacy.ledger import LEDGER_SCHEMA, Ledger, TrialLedger
from dphyper.privacy.mechanisms import BestOfTrials, NoisyHistogram, OneShotMean, PoissonGradientSteps
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData

SELECTION = BestOfTrials(trial=(NoisyHistogram(),), mean_trials=10.0)


def identity(x: Tensor, rng: torch.Generator) -> Tensor:
    return x


def budget(epsilon: float = 1.0, relation: Relation = Relation.ADD_OR_REMOVE_ONE) -> Budget:
    return Budget(epsilon=epsilon, delta=1e-5, relation=relation)


def open_private(ledger: Ledger, *, n: int = 50, noise: NoiseSource | None = None) -> PrivateData:
    return PrivateData(torch.ones(n, 1), n=n, ledger=ledger, noise=noise or NoiseSource.os())


def test_shared_budget_is_spent_exactly() -> None:
    mechanisms = calibrate(budget(2.0), OneShotMean(), NoisyHistogram(), OneShotMean(l2_clip_norm=9.0))
    ledger = Ledger(budget(2.0))
    private = open_private(ledger)
    private.release_mean(identity, mechanisms[0], role="a")
    private.release_histogram(identity, mechanisms[1], role="b")
    assert ledger.spent() < 2.0
    private.release_mean(identity, mechanisms[2], role="c")
    assert ledger.spent() == pytest.approx(2.0, rel=1e-5)


def test_resumed_run_gets_the_stored_release_and_never_a_second(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"

    def draw_nothing(count: int) -> bytes:
        raise AssertionError(f"{count} bytes of noise were drawn")

    mean, gradients = calibrate(
        budget(1.0), OneShotMean(), PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=1.0, steps=3)
    )
    private = open_private(Ledger.open(path, budget(1.0)))
    first = private.release_mean(identity, mean, role="embedding")
    next(private.gradient_steps(identity, gradients, role="gradient"))  # and killed here

    quiet = NoiseSource(draw_nothing, is_reproducible=False)
    resumed = open_private(Ledger.open(path, budget(1.0)), noise=quiet)
    assert resumed.ledger.spent() == pytest.approx(1.0, rel=1e-5)
    again = resumed.release_mean(identity, mean, role="embedding")
    assert torch.equal(again.mean, first.mean)
    assert (again.noise_std, again.count) == (first.noise_std, first.count)
    with pytest.raises(PrivacyError, match="role 'gradient' is charged already"):
        resumed.gradient_steps(identity, gradients, role="gradient")
    with pytest.raises(PrivacyError, match="was released by"):
        resumed.release_mean(identity, OneShotMean(noise_multiplier=99.0), role="embedding")
    with pytest.raises(PrivacyError, match="was opened for"):
        Ledger.open(path, budget(2.0))
    with pytest.raises(PrivacyError, match="the ledger has n = 50"):
        open_private(Ledger.open(path, budget(1.0)), n=51)
    with pytest.raises(PrivacyError, match="'reproducible'"):
        open_private(Ledger.open(path, budget(1.0)), noise=NoiseSource.reproducible(0))


def test_the_charge_is_on_disk_before_noise_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    states: list[bool] = []

    def stream(count: int) -> bytes:
        states.append(json.loads(path.read_text())["charges"][0]["complete"])
        return os.urandom(count)

    (mean,) = calibrate(budget(1.0), OneShotMean())
    noise = NoiseSource(stream, is_reproducible=False)
    open_private(Ledger.open(path, budget(1.0)), noise=noise).release_mean(identity, mean, role="a")
    assert states
    assert not any(states)
    assert json.loads(path.read_text())["charges"][0]["complete"]


@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize("epsilon", [1.0, math.inf])
def test_ledger_survives_json(relation: Relation, epsilon: float) -> None:
    ledger = Ledger(budget(epsilon, relation))
    private = open_private(ledger)
    mechanisms = calibrate(
        budget(epsilon, relation),
        OneShotMean(),
        PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=0.3, steps=4),
        NoisyHistogram(),
    )
    private.release_mean(identity, mechanisms[0], role="a")
    list(private.gradient_steps(identity, mechanisms[1], role="b"))
    private.release_histogram(identity, mechanisms[2], role="c")
    if epsilon == math.inf:
        clear = OneShotMean(l2_clip_norm=math.inf, noise_multiplier=0.0)
        private.release_mean(identity, clear, role="d")
    plain = json.loads(json.dumps(ledger.to_json(), allow_nan=False))
    copied = Ledger.from_json(plain)
    assert copied.to_json() == ledger.to_json()
    assert copied.spent() == ledger.spent()
    assert copied.charges == ledger.charges
    assert copied.private is (epsilon < math.inf)
    with pytest.raises(UserError, match=f"schema 99, this version reads {LEDGER_SCHEMA}"):
        Ledger.from_json(plain | {"schema": 99})


def test_reproducible_noise_is_never_private() -> None:
    (mean,) = calibrate(budget(1.0), OneShotMean())
    for noise, private in ((NoiseSource.reproducible(0), False), (NoiseSource.os(), True)):
        ledger = Ledger(budget(1.0))
        open_private(ledger, noise=noise).release_mean(identity, mean, role="a")
        assert ledger.private is private
        assert ledger.to_json()["private"] is private


def test_delta_must_lie_below_one_over_n() -> None:
    with pytest.raises(PrivacyError, match="expected far below 1/n"):
        open_private(Ledger(budget()), n=200_000)


def test_charges_of_a_dead_process_are_taken_back_unless_their_output_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = Ledger.open(path, budget())
    histogram, mean = NoisyHistogram(noise_multiplier=200.0), OneShotMean(noise_multiplier=200.0)
    selection = SELECTION.with_noise(60.0)
    ledger.charge(mean, role="stored")
    ledger.complete("stored", [1.0, 2.0])
    ledger.charge(histogram, role="unseen")
    ledger.charge(selection, role="choice")
    assert ledger.forget_unseen()
    assert [charge.role for charge in Ledger.open(path, budget()).charges] == ["stored", "choice"]
    assert not ledger.forget_unseen()
    assert ledger.output("stored", mean) == (1.0, 2.0)
    assert ledger.output("choice", selection) is None


def test_charges_of_a_run_that_raised_stay_and_compose(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = Ledger.open(path, budget())
    (mean,) = calibrate(budget(), OneShotMean())
    ledger.charge(OneShotMean(noise_multiplier=20.0), role="stored")
    ledger.complete("stored", [1.0])
    ledger.charge(OneShotMean(noise_multiplier=20.0), role="lost")
    before = ledger.spent()
    ledger.close_attempt()
    again = Ledger.open(path, budget())
    assert [(charge.role, charge.attempt) for charge in again.charges] == [("stored", 0), ("lost", 1)]
    assert [charge.role for charge in again.current] == ["stored"]
    again.charge(OneShotMean(noise_multiplier=20.0), role="lost")
    assert again.spent() > before
    with pytest.raises(PrivacyError, match="with what 1 failed attempt released"):
        again.charge(mean, role="all")


def test_releases_are_compared_with_the_declared_ones_up_to_rounding() -> None:
    ledger = Ledger(budget())
    mean, histogram = OneShotMean(noise_multiplier=20.0), NoisyHistogram(noise_multiplier=30.0)
    ledger.charge(mean, role="a")
    ledger.charge(histogram, role="b")
    near = NoisyHistogram(noise_multiplier=30.0 * (1 + 1e-6))
    assert ledger.differences([near, mean]) == []
    far = NoisyHistogram(noise_multiplier=30.0 * (1 + 1e-4))
    undeclared, missing = ledger.differences([far, mean])
    assert undeclared.startswith("role 'b' released NoisyHistogram")
    assert missing.endswith("is declared by its method, and not in its ledger")
    assert len(ledger.differences([mean])) == len(ledger.differences([near, mean, mean])) == 1


def test_a_trial_may_make_the_listed_releases_once_each() -> None:
    histogram, mean = NoisyHistogram(noise_multiplier=9.0), OneShotMean(noise_multiplier=9.0)
    ledger = TrialLedger(budget(), (histogram, mean, histogram))
    for role, mechanism in (("a", histogram), ("b", mean), ("c", histogram)):
        ledger.charge(mechanism, role)
    for mechanism in (histogram, mean, NoisyHistogram(noise_multiplier=900.0)):
        with pytest.raises(PrivacyError, match="each once; it may not draw"):
            ledger.charge(mechanism, "d")


def test_an_interrupted_selection_is_refused(tmp_path: Path) -> None:
    path, (mechanism,) = tmp_path / "ledger.json", calibrate(budget(), SELECTION)

    def killed(private: PrivateData, rng: torch.Generator) -> tuple[int, float]:
        assert not json.loads(path.read_text())["charges"][0]["complete"]  # charged on disk before the first trial
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_private(Ledger.open(path, budget())).best_of(killed, mechanism, role="choice")
    resumed = Ledger.open(path, budget())
    assert [(charge.role, charge.complete) for charge in resumed.charges] == [("choice", False)]
    with pytest.raises(PrivacyError, match="role 'choice' is charged already"):
        open_private(resumed).best_of(lambda p, r: (0, 0.0), mechanism, role="choice")


@pytest.mark.parametrize("shape", [0.0, 1.0, math.inf])
@pytest.mark.parametrize("epsilon", [1.0, math.inf])
def test_ledger_of_a_selection_survives_json(epsilon: float, shape: float) -> None:
    gradients = PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=0.3, steps=4)
    trials = BestOfTrials(
        trial=(gradients, OneShotMean(), NoisyHistogram()), mean_trials=10.0, shape=shape, noise_ratios=(1.0, 2.0, 0.5)
    )
    # Multipliers that are known to fit the budget, since the search for the best takes seconds.
    sigma = 60.0 if math.isfinite(epsilon) else 0.0
    mechanisms = trials.with_noise(sigma), OneShotMean(noise_multiplier=sigma)
    ledger = Ledger(budget(epsilon))
    private = open_private(ledger)
    private.best_of(lambda p, r: (0, 0.0), mechanisms[0], role="choice")
    private.release_mean(identity, mechanisms[1], role="mean")
    plain = json.loads(json.dumps(ledger.to_json(), allow_nan=False))
    copied = Ledger.from_json(plain)
    assert copied.to_json() == ledger.to_json()
    assert copied.charges == ledger.charges
    assert copied.spent() == ledger.spent()
    assert copied.has_selection
    assert copied.private is (epsilon < math.inf)
    for charge, line in zip(ledger.charges, plain["charges"], strict=True):
        assert event_from_json(line["event"]) == charge.mechanism.event()
        assert line["event"] == event_json(charge.mechanism.event())
    assert len(plain["charges"][0]["noise_std"]) == 3
