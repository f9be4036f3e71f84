"""Names, looks and numbers in print."""

import math
from pathlib import Path

from toy_store import add, fill, only, winning

from dphyper.bench.store import Store
from dphyper.core.labels import SELECTION_LABELS, SELECTIONS
from dphyper.core.specs import Cell
from dphyper.reports.aggregate import aggregate
from dphyper.reports.style import add_names, look, number_format


def test_series_are_sorted_by_role_and_each_says_how_it_was_tuned_and_whether_it_is_private(tmp_path: Path) -> None:
    store = fill(Store(tmp_path), winning, seeds=1)
    add(store, Cell(task="kettle", method="dp_sgd", epsilon=math.inf), "private", 1.0, private=False)
    points = add_names(aggregate(only(store).values))
    assert [*dict.fromkeys(points["series"])] == [
        "Hypernetwork, k = 8 (tuned on public tasks)",
        "DP-SGD (tuned on public tasks)",
        "DP-SGD (tuned on public tasks, not private)",
        "Public mean, k = 8 (fixed)",
        "Hypernetwork at σ = 0, k = 8 (non-private)",
        "Public only (fixed)",
        "Non-private LoRA (non-private)",
        "Real versus real (no model)",
    ]


def test_every_way_of_choosing_hyper_parameters_has_its_words() -> None:
    assert SELECTION_LABELS.keys() == SELECTIONS.keys()


def test_methods_have_different_looks_and_an_unknown_one_has_its_name() -> None:
    assert look("hypernetwork") != look("dp_sgd")
    assert look("my_method").label == "my_method"


def test_numbers_are_printed_in_the_units_of_the_metric(tmp_path: Path) -> None:
    store = Store(tmp_path)
    add(store, Cell(task="kettle"), "private", 48.2, metrics={"denoising_loss": 0.0812}, real={"frechet": 51.0})
    section = only(store)
    assert number_format(section).interval(48.23, 1.0) == "48.2 ± 1.0"
    assert number_format(section, "denoising_loss").interval(0.08123, math.nan) == "812 ± n/a"
    assert number_format(section, "kernel").value(0.0123) == "0.0123"
