"""DP-SGD that chooses its learning rate: its candidates, its score, and how a trial's two releases share the noise."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dphyper.audits.store_check import check_store
from dphyper.bench.catalog import METHODS
from dphyper.bench.store import Store
from dphyper.cli.main import main
from dphyper.core.errors import UserError
from dphyper.methods.dp_sgd_tuned import DPSGDTuned, DPSGDTunedOptions
from dphyper.privacy.accounting import epsilon_of
from dphyper.privacy.budget import Budget, Relation
from dphyper.studies.theory.regression import LinearRegression

BUDGET = Budget(epsilon=2.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


@pytest.mark.parametrize("rates", ["", "6,", "6, fast", "0, 6", "-1", "inf", "nan"])
def test_learning_rates_that_are_none_are_refused(rates: str) -> None:
    assert DPSGDTunedOptions(learning_rates=" 6,18 ").candidates() == [6.0, 18.0]
    with pytest.raises(UserError, match=r"learning_rates = .* expected numbers above 0"):
        METHODS["dp_sgd_tuned"].options_type.parse("dp_sgd_tuned", {"learning_rates": rates})


def test_trials_spend_the_budget_and_the_score_has_its_share() -> None:
    options = DPSGDTunedOptions(steps=4, score_share=0.2)
    (trials,) = DPSGDTuned.mechanisms(BUDGET, options)
    training, scoring = trials.trial
    # Both releases see all records: their shares of 1/σ² are T/σ² and 1/σ² of one trial.
    assert training.noise_multiplier is not None
    assert scoring.noise_multiplier is not None
    parts = 4 / training.noise_multiplier**2, 1 / scoring.noise_multiplier**2
    assert parts[1] / sum(parts) == pytest.approx(0.2)
    assert epsilon_of([trials.event()], 1e-5, BUDGET.relation) == pytest.approx(2.0, rel=1e-4)
    (halved,) = DPSGDTuned.mechanisms(dataclasses.replace(BUDGET, epsilon=1.0), options)
    assert epsilon_of([halved.event()], 1e-5, BUDGET.relation) == pytest.approx(1.0, rel=1e-4)


def test_number_of_trials_that_the_docs_name_is_that_of_the_defaults() -> None:
    (trials,) = DPSGDTuned.mechanisms(BUDGET, DPSGDTunedOptions())
    assert f" {trials.most_trials} trials by default" in DPSGDTuned.about.passes
    (more,) = DPSGDTuned.mechanisms(BUDGET, DPSGDTunedOptions(mean_trials=6.0))
    assert f" {more.most_trials} trials by default" not in DPSGDTuned.about.passes


def test_a_vote_is_the_clipped_improvement_and_worst_where_the_loss_is_no_number() -> None:
    method = DPSGDTuned(LinearRegression(1), DPSGDTunedOptions(score_clip=0.5, score_draws=2), embedding_dim=0)
    records = torch.tensor([[1.0, 2.0], [1.0, -1.0], [0.0, 1.0]])  # losses 2, 0.5 and 0.5 at θ = 0

    def votes(theta: float) -> Tensor:
        return method._vote(torch.tensor([theta]), records, torch.Generator())[:, 0]

    new = torch.tensor([0.5 * (2 - 0.2) ** 2, 0.5 * 1.2**2, 0.5])
    old = torch.tensor([2.0, 0.5, 0.5])
    torch.testing.assert_close(votes(0.2), (old - new) / (0.5 * old))
    assert votes(1.5).tolist() == [1.0, -1.0, 0.0]
    assert votes(math.nan).tolist() == [-1.0, -1.0, -1.0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"learning_rates": "2, six"}, "learning_rates = '2, six'"),
        ({"learning_rates": "2, -1"}, "expected numbers above 0"),
        ({"score_share": 1.0}, "score_share = 1.0"),
        ({"score_clip": 0.0}, "score_clip = 0.0"),
        ({"score_draws": 0}, "score_draws = 0"),
    ],
)
def test_options_name_the_wrong_value(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DPSGDTunedOptions.parse("dp_sgd_tuned", wrong)


def test_a_run_tells_nothing_of_the_number_of_trials_and_does_not_start_over(
    sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    options = {"steps": 2, "multiplicity": 1, "mean_trials": 2.0, "score_draws": 1}
    path = sweep_file(
        grid=[{"method": ["dp_sgd_tuned"], "epsilon": [8]}],
        options={"dp_sgd_tuned": options},
        cell={"reproducible_noise": False},
    )
    store = Store(tmp_path / "store")

    def run() -> dict[str, Any]:
        with pytest.raises(SystemExit):
            main(["sweep", "run", str(path)])
        (row,) = store.rows().to_dict("records")
        return {str(key): value for key, value in row.items()}

    row = run()
    assert (row["status"], row["private"], row["selection"]) == ("done", True, "tuned_private")
    assert "seconds_adapt" not in row
    assert row["statement"].startswith("The output is (ε = 8")
    assert "best of K trials" in row["statement"]
    # What the commit of this checkout lets a row claim is none of this test's business.
    assert [finding for finding in check_store(store) if "commit" not in finding] == []

    folder = store.directory(row["cell"])
    (folder / "row.json").unlink()
    (folder / "theta.safetensors").unlink()  # as if killed before the result was kept
    row = run()
    assert row["status"] == "failed"
    assert "role 'learning rate' is charged already" in row["error"]
