"""The words of the privacy statement, and when it claims nothing."""

import math

import pytest

from dphyper.core.specs import Cell
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.mechanisms import BestOfTrials, Mechanism, NoisyHistogram, OneShotMean
from dphyper.privacy.noise import NoiseSource
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
