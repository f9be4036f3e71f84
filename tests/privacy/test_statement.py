"""The words of the privacy statement, and when it claims nothing."""

import dataclasses
import math

import pytest
import torch

from dphyper.core.specs import Cell
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.mechanisms import (
    BestOfTrials,
    Mechanism,
    NoisyHistogram,
    OneShotMean,
    PoissonGradientSteps,
)
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData
from dphyper.privacy.statement import privacy_statement

CELL = Cell(task="8", n=128, epsilon=1.0)
WHOLE = (
    "The output is (ε = 1, δ = 1e-05)-differentially private with respect to one record: two data sets are "
    "neighbours if they differ by the addition or removal of one record (the number of records is secret). "
    "Released (embedding): the sum of per-record vectors clipped to l2 norm 1, once jointly with their number, "
    "with Gaussian noise of standard deviation 3.932 on each coordinate (noise multiplier 3.731; l2 sensitivity "
    "1.054). Accounting: privacy-loss distributions or the exact Gaussian formula, confirmed by a second "
    "accountant. What is released is rounded to a grid that the noise covers; the noise is an exact Gaussian "
    "from the operating system's entropy. Taken as public: a font collection, the model architecture, all "
    "hyper-parameters, and the expected batch size. All hyper-parameters were fixed in advance, at no privacy "
    "cost. The guarantee is that of this one run: other runs on the same records add to it. It does not cover "
    "what judges the run: distances, losses and shifts come from held-out records of the same family. Nor does "
    "it cover the running times, which are told. A hash of the family's data stands in the row, under a key "
    "that the store keeps."
)


def ledger(
    mechanism: Mechanism,
    *,
    epsilon: float = 1.0,
    relation: Relation = Relation.ADD_OR_REMOVE_ONE,
    noise: NoiseSource | None = None,
) -> Ledger:
    made = Ledger(Budget(epsilon=epsilon, delta=1e-5, relation=relation))
    made.bind(n=CELL.n, noise=noise or NoiseSource.os())
    made.charge(*calibrate(made.budget, mechanism), role="embedding")
    return made


def test_the_statement_reads_as_printed() -> None:
    assert privacy_statement(CELL, ledger(OneShotMean()), "fixed", "a font collection") == WHOLE
    assert privacy_statement(CELL, ledger(OneShotMean(l2_clip_norm=2.0)), "fixed", "a font collection") != WHOLE


@pytest.mark.parametrize("relation", [Relation.ZERO_OUT, Relation.REPLACE_ONE])
def test_n_is_public_where_the_relation_makes_it_so(relation: Relation) -> None:
    text = privacy_statement(CELL, ledger(OneShotMean(), relation=relation), "fixed", "digits")
    assert "the number of records is public" in text
    assert "and n = 128." in text
    assert "jointly with their number" not in text


def test_no_guarantee_is_claimed_where_there_is_none() -> None:
    mean, trials = OneShotMean(), BestOfTrials(trial=(NoisyHistogram(),), mean_trials=10.0)
    for made, selection, reason in (
        (ledger(mean, epsilon=math.inf), "fixed", "private records were used without noise"),
        (ledger(mean, noise=NoiseSource.reproducible(0)), "fixed", "the noise can be computed again from a seed"),
        (ledger(mean), "non_private", "chosen on the private records without accounting"),
        (ledger(mean), "tuned_private", "chosen on the private records without accounting"),
    ):
        text = privacy_statement(CELL, made, selection, "digits")
        assert text.startswith("No privacy guarantee: ")
        assert reason in text
        assert "differentially private" not in text
    charged = privacy_statement(CELL, ledger(trials), "tuned_private", "digits")
    assert charged.startswith("The output is (ε = 1, δ = 1e-05)-differentially private")
    assert "the best of K trials" in charged
    untouched = Ledger(Budget(epsilon=1.0, delta=1e-5, relation=Relation.ZERO_OUT))
    assert privacy_statement(CELL, untouched, "fixed", "digits").startswith("The output depends on no private record")


GRADIENTS = PoissonGradientSteps(steps=3, sampling_prob=0.5, l2_clip_norm=1.0)
TRIALS = BestOfTrials(
    trial=(PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=1.0, steps=3), NoisyHistogram()),
    mean_trials=4.0,
    noise_ratios=(1.0, 0.5),
)


def run(cell: Cell, mechanism: Mechanism | None, noise: NoiseSource | None = None) -> Ledger:
    """Release from zero records as a runner would."""
    ledger = Ledger(Budget(epsilon=cell.epsilon, delta=cell.delta, relation=Relation(cell.relation)))
    private = PrivateData(torch.zeros(cell.n, 3), n=cell.n, ledger=ledger, noise=noise or NoiseSource.os())
    for calibrated in calibrate(ledger.budget, mechanism) if mechanism else ():
        match calibrated:
            case OneShotMean():
                private.release_mean(lambda x, rng: x, calibrated, role="embedding")
            case PoissonGradientSteps():
                list(private.gradient_steps(lambda x, rng: x, calibrated, role="gradient"))
            case NoisyHistogram():
                private.release_histogram(lambda x, rng: x, calibrated, role="votes")
            case BestOfTrials():
                private.best_of(lambda trial, rng: (None, 0.0), calibrated, role="choice")
    return ledger


@pytest.mark.parametrize("relation", Relation)
def test_statement_names_unit_relation_budget_mechanism_noise_and_public_data(relation: Relation) -> None:
    cell = Cell(task="8", relation=relation.value, epsilon=1.0)
    text = privacy_statement(cell, run(cell, OneShotMean()), "tuned_public", "a font collection")
    words = {
        Relation.ADD_OR_REMOVE_ONE: "addition or removal of one record",
        Relation.ZERO_OUT: "replaced with a null record",
        Relation.REPLACE_ONE: "the replacement of one record",
    }
    for part in (
        "(ε = 1, δ = 1e-05)-differentially private with respect to one record",
        words[relation],
        "clipped to l2 norm 1",
        f"noise multiplier {'7.461' if relation is Relation.REPLACE_ONE else '3.731'}",
        "operating system's entropy",
        "Taken as public: a font collection",
        "public tasks held out for tuning",
        "other runs on the same records add to it",
        "held-out records of the same family",
    ):
        assert part in text
    assert ("n = 128" in text) is (relation is not Relation.ADD_OR_REMOVE_ONE)
    assert "\n" not in text


def test_statement_of_gradient_steps_and_votes() -> None:
    cell = Cell(task="8", epsilon=8.0)
    text = privacy_statement(cell, run(cell, GRADIENTS), "fixed", "digits")
    assert "3 sums of per-example gradients" in text
    assert "Poisson samples of rate 0.5" in text
    assert "a histogram of per-record votes of l2 norm at most 1" in privacy_statement(
        cell, run(cell, NoisyHistogram()), "fixed", "digits"
    )


def test_statement_claims_nothing_that_the_ledger_does_not_support() -> None:
    cell = Cell(task="8", epsilon=1.0)
    sound = run(cell, OneShotMean())
    seeded = run(cell, OneShotMean(), NoiseSource.reproducible(0))
    clear = run(Cell(task="8", epsilon=math.inf), OneShotMean())
    for ledger, selection, reason in (
        (seeded, "fixed", "from a seed"),
        (clear, "fixed", "used without noise"),
        (sound, "non_private", "without accounting"),
        (sound, "tuned_private", "without accounting"),
    ):
        text = privacy_statement(cell, ledger, selection, "digits")
        assert text.startswith("No privacy guarantee: ")
        assert reason in text
        assert "differentially private" not in text
        assert "The guarantee" not in text
    unknown = privacy_statement(cell, sound, "unknown", "digits")
    assert unknown.startswith("The output is (ε = 1")
    assert "not recorded; a choice on private results would not be accounted for" in unknown
    untouched = run(Cell(task="8", epsilon=math.inf), None)
    assert privacy_statement(cell, untouched, "fixed", "digits").startswith("The output depends on no private record")


def test_statement_of_charged_trials_holds() -> None:
    cell = Cell(task="8", epsilon=2.0)
    ledger = run(cell, TRIALS)
    text = privacy_statement(cell, ledger, "tuned_private", "digits")
    assert text.startswith("The output is (ε = 2")
    for part in (
        "Released (choice): the best of K trials and nothing of the others",
        "drawn from a geometric law of mean 4, the cost of the choice included in ε",
        "3 sums of per-example gradients clipped to l2 norm 1",
        "a histogram of per-record votes of l2 norm at most 1",
        "theorems on private selection of Papernot and Steinke (2022), confirmed by a second accountant",
        "the candidates and all other hyper-parameters",
        "Hyper-parameters were chosen on the private records",
    ):
        assert part in text
    poisson = run(cell, dataclasses.replace(TRIALS, shape=math.inf))
    assert "drawn from a Poisson law of mean 4" in privacy_statement(cell, poisson, "tuned_private", "digits")


def test_statement_tells_what_is_shown_besides() -> None:
    cell = Cell(task="8", epsilon=1.0)
    ledger = run(cell, OneShotMean())
    shown, hidden = (privacy_statement(cell, ledger, "fixed", "digits", reference_shown=x) for x in (True, False))
    assert "sheet of reference images, which is shown" in shown
    assert "sheet" not in hidden
    assert "under a key that the store keeps" in hidden
    assert "running times, which are told" in hidden
    tuned = privacy_statement(cell, run(cell, TRIALS), "tuned_private", "digits")
    assert "does not tell how long the run took" in tuned
    ledger.charges[0] = dataclasses.replace(ledger.charges[0], attempt=2)
    assert "Released (embedding, in failed attempt 2): " in privacy_statement(cell, ledger, "fixed", "digits")


def test_a_role_named_tuning_is_no_private_selection() -> None:
    cell = Cell(task="8", epsilon=2.0)
    budget = Budget(epsilon=2.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
    (trial,) = calibrate(budget, NoisyHistogram())
    ledger = Ledger(budget)
    private = PrivateData(torch.zeros(128, 2), n=128, ledger=ledger, noise=NoiseSource.os())
    private.release_histogram(lambda x, rng: x, trial, role="tuning scores")
    assert "without accounting" in privacy_statement(cell, ledger, "tuned_private", "digits")
