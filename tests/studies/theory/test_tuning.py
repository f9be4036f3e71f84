"""Tuning: no worse than untuned settings, and yielding to 0 where noise hides everything."""

from pathlib import Path

import pytest

from dphyper.studies.theory import tuning
from dphyper.studies.theory.points import Point
from dphyper.studies.theory.tuning import FIXED, GRID, measure_risks, one_step_setting, tune


@pytest.mark.parametrize("method", ["dp_sgd", "dp_sgd_subspace", "dope"])
def test_tuning_yields_to_zero_where_noise_hides_everything(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point = Point(d=100, k=8, n=16, epsilon=0.1, public_tasks=50)

    def risk() -> float:
        setting = tune.__wrapped__(point, method)
        return measure_risks(point, method, [setting], tasks=32, draws=4, purpose="check")[setting]

    assert risk() < 1.02
    coarse = [setting for setting in GRID if setting.clip >= 0.3 and setting.length >= 0.05]
    monkeypatch.setattr(tuning, "GRID", coarse)
    assert risk() > 1.02, "a grid without small steps must be caught"


@pytest.mark.parametrize(("n", "epsilon"), [(512, 1.0), (2048, 0.5)])
def test_tuned_steps_are_no_worse_than_untuned_ones(n: int, epsilon: float) -> None:
    point = Point(d=30, k=3, n=n, epsilon=epsilon, public_tasks=300)
    for method, dimension in (("dp_sgd", point.d), ("dp_sgd_subspace", point.k)):
        settings = [FIXED, one_step_setting(dimension), tune(point, method), GRID[0]]
        risks = measure_risks(point, method, settings, tasks=64, draws=8, purpose="check")
        *untuned, tuned, idle = (risks[setting] for setting in settings)
        assert tuned < 1.05 * min(untuned), (method, risks)
        assert idle > 1.05 * tuned, "a setting that hardly moves must be caught"


def test_docs_state_the_size_of_the_grid() -> None:
    text = (Path(__file__).parents[3] / "docs" / "theory.md").read_text()
    assert f"{len(GRID)} settings" in text
    assert len(GRID) == len(set(GRID))
