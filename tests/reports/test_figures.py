"""What is drawn in which panel, and what stays in the frame."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from toy_store import EPSILONS, add, fill, only, winning

from dphyper.bench.store import Store
from dphyper.core.specs import Cell
from dphyper.reports import figures
from dphyper.reports.measures import HIGHER_IS_BETTER, LOWER_IS_BETTER


@pytest.fixture
def panels_drawn(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """The panels of all figures that the test draws."""
    drawn: list[Axes] = []
    canvas = figures._canvas

    @contextmanager
    def watched(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with canvas(*args, **kwargs) as (figure, axes):
            yield figure, axes
            drawn.extend(axes)

    monkeypatch.setattr(figures, "_canvas", watched)
    return drawn


@pytest.mark.parametrize(("count", "panels"), [(7, 1), (8, 2), (15, 3)])
def test_many_curves_are_dealt_to_several_panels(
    count: int, panels: int, tmp_path: Path, panels_drawn: list[Axes]
) -> None:
    store, names = Store(tmp_path / "store"), [f"method_{i}" for i in range(count)]
    for method in (*names, "public_only"):
        for epsilon in EPSILONS if method in names else (math.inf,):
            add(store, Cell(task="kettle", method=method, epsilon=epsilon), "private", 50.0 + min(epsilon, 16.0))
    assert figures.distance_vs_epsilon(only(store), "private", tmp_path / "figure")
    drawn = [ax.get_legend_handles_labels()[1] for ax in panels_drawn]
    assert len(drawn) == panels
    curves = [{label for label in panel if "method_" in label} for panel in drawn]
    assert max(map(len, curves)) <= figures.CURVES
    assert len({label for panel in curves for label in panel}) == sum(map(len, curves)) == count
    constants = [{*panel} - own for panel, own in zip(drawn, curves, strict=True)]
    assert constants[0]
    assert all(lines == constants[0] for lines in constants)


@pytest.mark.parametrize(("outlier", "left_out"), [("dp_sgd", [900.0]), ("public_only", [])])
def test_a_mean_far_above_all_others_leaves_the_frame_unless_it_is_a_floor(outlier: str, left_out: list[float]) -> None:
    roles = {"hypernetwork": "method", "dp_sgd": "method", "public_only": "floor"}
    rows = [(method, 50.0 + seed) for method in roles for seed in range(8)] + [(outlier, 900.0)]
    points = pd.DataFrame(rows, columns=["method", "mean"]).assign(half=math.nan)
    ax = Figure().subplots()
    outside = figures._frame_means(ax, points.assign(role=points["method"].map(roles)), LOWER_IS_BETTER)
    assert [*outside["mean"]] == left_out
    assert (ax.get_ylim()[1] < 900) == bool(left_out)


def test_a_mean_beyond_the_fence_that_the_intervals_make_room_for_is_not_said_to_be_left_out() -> None:
    rows = [("method", 50.0 + seed, math.nan) for seed in range(8)] + [
        ("method", 84.0, math.nan),
        ("floor", 55.0, 30.0),
    ]
    points = pd.DataFrame(rows, columns=["role", "mean", "half"])
    ax = Figure().subplots()
    assert [*figures._frame_means(ax, points, LOWER_IS_BETTER)["mean"]] == [84.0]
    # One mean further down, and the floor's interval may reach further up.
    assert figures._frame_means(ax, points.replace({"mean": {50.0: 20.0}}), LOWER_IS_BETTER).empty
    assert ax.get_ylim()[1] > 84


def test_a_sweep_over_k_is_drawn(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for k in (4, 16):
        for seed in range(2):
            add(store, Cell(task="kettle", embedding_dim=k, seed=seed), "private", 10.0 + seed, embedding_dim=k)
    assert figures.distance_vs_embedding_dim(only(store), tmp_path / "lines")
    assert (tmp_path / "lines.pdf").exists()
    assert not figures.distance_vs_embedding_dim(only(fill(Store(tmp_path / "one"), winning, seeds=1)), tmp_path / "no")
    assert not (tmp_path / "no.pdf").exists()


def test_heat_map_is_drawn_where_a_method_ran_with_several_k_and_epsilons(
    tmp_path: Path, panels_drawn: list[Axes]
) -> None:
    store = Store(tmp_path / "store")
    for k in (4, 8):
        for epsilon in (1.0, 4.0):
            for seed in (0, 1):
                cell = Cell(task="kettle", epsilon=epsilon, seed=seed, embedding_dim=k)
                add(store, cell, "private", 10.0 * k / epsilon, embedding_dim=k)
    assert figures.embedding_dim_heat_map(only(store), tmp_path / "map")
    assert (tmp_path / "map.pdf").exists()
    # A second task at one k only has no map, and does not take the first one's.
    for epsilon in (1.0, 4.0):
        add(store, Cell(task="leaf", epsilon=epsilon, embedding_dim=8), "private", 10.0)
    assert figures.embedding_dim_heat_map(only(store), tmp_path / "again")
    assert [ax.get_title("left") for ax in panels_drawn] == ["kettle", "kettle"]
    assert not figures.embedding_dim_heat_map(only(fill(Store(tmp_path / "one"), winning)), tmp_path / "none")


def test_where_more_is_better_a_mean_far_below_all_others_leaves_the_frame() -> None:
    means = [50.0 + seed for seed in range(8)] + [-900.0, 900.0]
    points = pd.DataFrame({"role": "method", "mean": means, "half": math.nan})
    ax = Figure().subplots()
    assert [*figures._frame_means(ax, points, HIGHER_IS_BETTER)["mean"]] == [-900.0]
    assert ax.get_ylim()[0] > -900
    assert ax.get_ylim()[1] > 900


@pytest.mark.parametrize("rising", [False, True])
def test_the_frame_of_a_heat_map_stands_around_the_best(rising: bool, request: pytest.FixtureRequest) -> None:
    if rising:
        request.getfixturevalue("rising_headline")
    ax = Figure().subplots()
    figures._draw_map(ax, np.array([[1.0, 5.0], [2.0, math.nan]]), 1)
    assert [patch.get_xy() for patch in ax.patches] == [(0, int(rising)), (1, 0)]
