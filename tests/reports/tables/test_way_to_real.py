"""Shares of the way to real images, against computations by hand, and the warnings on ceilings."""

import math
from pathlib import Path

import pytest
from toy_store import METHODS, add, only, point, told

from dphyper.bench.store import Store
from dphyper.core.specs import Cell
from dphyper.reports.ceilings import warnings
from dphyper.reports.sections import Section
from dphyper.reports.tables.way_to_real import WayToReal, ways_to_real


def fill(store: Store, levels: dict[str, tuple[float, ...]], task: str = "kettle") -> Section:
    """Methods with a value for each seed; real images have 5, 5.1, 5.2, …"""
    for method, values in levels.items():
        for seed, value in enumerate(values):
            epsilon = 1.0 if METHODS[method][0] == "method" else math.inf
            cell = Cell(task=task, method=method, epsilon=epsilon, seed=seed, embedding_dim=8)
            add(store, cell, "private", value)
    return only(store)


def test_the_share_agrees_with_a_computation_by_hand(tmp_path: Path) -> None:
    levels = {"public_only": (105.0, 105.1), "hypernetwork": (80.0, 70.1), "nonprivate_lora": (25.0, 25.1)}
    section = fill(Store(tmp_path), levels)
    row = point(ways_to_real(section), task="kettle", method="hypernetwork")
    assert (row["way"], row["ceiling"]) == (pytest.approx(0.3), pytest.approx(0.8))
    assert (row["seeds"], row["trainings"]) == (2, 1)
    # The way is 100 for both seeds and the gains are 25 and 35: t of one degree of freedom times 5, over 100.
    assert row["half"] == pytest.approx(12.706204736 * 5 / 100)
    text = WayToReal.make(section, "private").to_markdown()
    assert "| ε = 1 | 0.30 ± 0.64 | 0.80 | 0.38 ± 0.79 | 2 |" in text
    assert "public_only" not in {*ways_to_real(section)["method"]}
    assert "goes 0.30 ± 0.64 at ε = 1 of the way from the public model to real images; the best ceiling 0.80" in told(
        section, "In short"
    )


def test_a_seed_that_moves_public_model_and_method_alike_does_not_widen_the_interval(tmp_path: Path) -> None:
    levels = {"public_only": (105.0, 205.1, 305.2), "hypernetwork": (55.0, 105.1, 155.2)}
    row = point(ways_to_real(fill(Store(tmp_path), levels)), task="kettle", method="hypernetwork")
    assert (row["way"], row["half"]) == (pytest.approx(0.5), pytest.approx(0.0, abs=1e-9))
    assert math.isnan(row["ceiling"])


def test_without_a_way_to_go_there_is_no_share(tmp_path: Path) -> None:
    section = fill(Store(tmp_path), {"public_only": (4.0, 4.0), "hypernetwork": (3.0, 3.0)})
    assert WayToReal.make(section, "private") is None
    assert told(section, "Are the ceilings ceilings?").startswith("missing: Cannot be told")


def test_a_ceiling_that_goes_less_than_half_of_the_way_is_warned_of(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, {"public_only": (105.0,), "nonprivate_lora": (50.0,)})
    assert warnings(only(store)) == []
    assert told(only(store), "Are the ceilings ceilings?").startswith("good: The best ceiling goes 0.55 of the way")
    section = fill(store, {"public_only": (105.0,), "nonprivate_lora": (95.0,), "hypernetwork": (60.0,)}, "leaf")
    (warning,) = warnings(section)
    assert warning == (
        "The target is too weak to tell methods apart on 1 of 2 tasks: the best ceiling goes less than half of the way "
        "from the public model to real images on leaf (Non-private LoRA: 10%)."
    )
    assert told(section, "Are the ceilings ceilings?") == f"bad: {warning}"


@pytest.mark.parametrize(
    ("last", "falls"),
    [
        ((20.0, 20.5, 19.5), True),
        ((39.0, 39.5, 40.0), False),  # by less than a twentieth of what is left
        ((10.0, 70.0, 10.0), False),  # within the interval
        ((20.0,), True),  # one seed, far lower
    ],
)
def test_a_ceiling_that_still_falls_with_more_steps_is_warned_of(
    last: tuple[float, ...], falls: bool, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    for steps, values in ((100, (90.0, 90.0, 90.0)), (400, (40.0, 40.0, 40.0)), (1600, last)):
        for seed, value in enumerate(values):
            options = {"steps": steps, "learning_rate": 0.1}
            add(store, Cell(task="chair", method="nonprivate_lora", options=options, seed=seed), "tuning", value)
    # On private tasks one setting is run: the search of the others, on tuning tasks, warns all the same.
    options = {"steps": 100, "learning_rate": 0.1}
    section = only(store)
    add(store, Cell(task="kettle", method="nonprivate_lora", options=options), "private", 90.0)
    section = only(store)
    assert section.trials == 3 + len(last)
    found = warnings(section)
    assert bool(found) is falls
    if falls:
        assert found[0].startswith("Non-private LoRA still gets better with more steps")
        assert "chair (40.0 to 20.0 from 400 to 1600 steps)" in found[0]
