"""Fixtures of the report side, and the path to ``toy_store.py``, which its tests share."""

import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from toy_store import PRIVATE, add, fill, only, winning

from dphyper.bench.store import Store
from dphyper.core.specs import Cell
from dphyper.metrics.metric import HEADLINE, METRICS, Evidence, Metric
from dphyper.reports.sections import Section


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The winning store, with a failed cell, an unknown method of one seed and a non-private ε = ∞ of DP-SGD."""
    store = fill(Store(tmp_path_factory.mktemp("store")), winning)
    add(store, Cell(task="kettle", method="dp_sgd", seed=9), "private", 0.0, status="failed", error="boom <b> & more")
    for task in PRIVATE:
        add(store, Cell(task=task, method="my_method", epsilon=4.0), "private", 10.0)
        lost = {"private": False, "selection": "non_private"}
        add(store, Cell(task=task, method="dp_sgd", epsilon=math.inf), "private", 1.0, **lost)
    return store


@pytest.fixture(scope="module")
def section(store: Store) -> Section:
    return only(store)


class Coverage(Metric):
    """Stands for a metric of an outside package, of which more is better."""

    label = "coverage"
    higher_is_better = True
    unbiased = True
    needs = frozenset({"features"})

    @classmethod
    def compute(cls, given: Evidence) -> float:
        raise NotImplementedError


@pytest.fixture
def coverage(monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a registered metric that is higher-is-better."""
    module = ModuleType("outside_package")
    module.Coverage = Coverage  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "outside_package", module)
    monkeypatch.setitem(METRICS.locations, "coverage", "outside_package:Coverage")
    return "coverage"


@pytest.fixture
def rising_headline(coverage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The headline metric is one of which more is better: what `add` stores as Fréchet distance is coverage."""
    monkeypatch.setitem(METRICS.locations, HEADLINE, METRICS.locations[coverage])
