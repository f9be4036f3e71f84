"""The interactive chart offers every metric, with the numbers of the figures."""

import json
import math
from pathlib import Path

import pytest
from toy_store import add, only

from dphyper.bench.store import Store
from dphyper.core.specs import Cell
from dphyper.reports.chart import chart


def test_every_metric_of_the_rows_can_be_chosen_and_the_headline_metric_comes_first(
    tmp_path: Path, coverage: str
) -> None:
    store = Store(tmp_path)
    for epsilon in (1.0, math.inf):
        add(store, Cell(task="kettle", epsilon=epsilon), "private", 9.0, metrics={"coverage": 0.5})
    drawn = chart(only(store))
    labels = {"frechet": "FD (EfficientNet-Lite0)", "coverage": "Coverage", "kernel": "Kernel distance"}
    assert [*drawn["metrics"].items()] == [*labels.items()]
    (choice,) = drawn["choices"]
    assert [*choice["traces"]] == [*labels]
    own = [trace for trace in choice["traces"]["coverage"] if "Hypernetwork" in trace.get("name", "")]
    assert [(trace["x"], trace["y"]) for trace in own] == [([1.0], [0.5]), ([2.2], [0.5])]
    assert (drawn["ticks"], drawn["labels"]) == ([1.0, 2.2], ["1", "∞"])
    json.dumps(drawn, allow_nan=False)  # a browser reads no NaN


def test_real_images_have_a_line_where_the_metric_has_a_value_of_theirs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    add(store, Cell(task="kettle", epsilon=1.0), "private", 9.0, metrics={"denoising_loss": 0.1})
    (choice,) = chart(only(store))["choices"]
    lines = {
        metric: [trace["y"][0] for trace in traces if trace.get("name", "").startswith("Real versus real")]
        for metric, traces in choice["traces"].items()
    }
    assert lines == {"frechet": [pytest.approx(5.0)], "kernel": [pytest.approx(0.005)], "denoising_loss": []}
