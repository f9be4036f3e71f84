"""Fits recover a law and its interval; intervals of the theory are those of worlds."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dphyper.studies.theory.fits import compare_forms, find_crossing, find_crossings, fit_slope, summarise


def test_fits_recover_a_law_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    x = 2.0 ** np.arange(5, 13)
    hits = 0
    for _ in range(300):
        _, low, high = fit_slope(x, x**-2.0 * np.exp(0.1 * rng.standard_normal(len(x))))
        hits += low <= -2 <= high
    assert 0.9 < hits / 300 < 0.99
    assert math.isnan(fit_slope(x, x - x[0])[0])
    assert math.isnan(find_crossing(x, np.ones(len(x))))


def test_intervals_of_the_theory_are_those_of_worlds() -> None:
    """The data sets of a world move together here: taken as independent, they would feign an interval half as wide."""
    rng, angles, n_tasks = np.random.default_rng(1), (0.0, 20.0, 40.0), 16
    shift = np.array([-6.0, -1.0, 2.0, 5.0])
    where = {"d": 64, "k": 8, "n": 512, "epsilon": 2.0, "public_tasks": 90, "public_size": 64}
    runs = pd.DataFrame(
        {"method": method, "world": world, "task": task, "draw": 0, "excess": excess, "excess_noiseless": excess}
        | {"moved": 0.1, "angle": angle, **where}
        for world in range(4)
        for task, wobble in enumerate(0.01 * rng.standard_normal(n_tasks))
        for angle in angles
        for method, excess in {
            "dp_sgd": 30.0,
            "hypernetwork": 10.0 + angle + shift[world] + wobble,
            "hypernetwork_learned": 12.0 + angle + shift[world] + wobble,
        }.items()
    )
    own = summarise(runs).query("method == 'hypernetwork' and angle == 0").iloc[0]
    values = runs.query("method == 'hypernetwork' and angle == 0")
    worlds = values.groupby("world")["excess"].mean()
    low, high = stats.ttest_1samp(worlds, 0).confidence_interval(0.95)
    assert (own["mean"], own["low"], own["high"]) == pytest.approx((worlds.mean(), low, high))
    alone = stats.ttest_1samp(values["excess"], 0).confidence_interval(0.95)
    assert own["high"] - own["low"] > 2 * (alone.high - alone.low)

    points = pd.DataFrame({"axis": "angle", "angle": angle, **where} for angle in angles)
    mark = find_crossings(runs, points).query("method == 'hypernetwork'").iloc[0]
    found = 20.0 - shift
    half = stats.t.ppf(0.975, 3) * stats.sem(found)
    assert (mark["crossing"], mark["no_crossing"]) == (pytest.approx(20.0, abs=0.05), 0)
    assert (mark["low"], mark["high"]) == pytest.approx((20 - half, 20 + half), abs=0.05)
    never = runs.assign(excess=runs["excess"].where((runs["method"] == "dp_sgd") | (runs["world"] > 0), 29.0))
    mark = find_crossings(never, points).query("method == 'hypernetwork'").iloc[0]
    assert (mark["no_crossing"], math.isnan(mark["low"])) == (0.25, True)

    ratio = compare_forms(runs).iloc[0]
    assert ratio["ratio"] == pytest.approx(stats.gmean((12 + shift) / (10 + shift)), abs=0.01)
