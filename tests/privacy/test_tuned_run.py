"""A whole run with a private selection: what its row tells, and that it does not start over."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dphyper.audits.store_check import check_store
from dphyper.bench.store import Store
from dphyper.cli.main import main
from dphyper.core.errors import UserError
from dphyper.methods.dp_sgd_tuned import DPSGDTunedOptions


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
