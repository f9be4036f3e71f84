"""The runner: a failure is a row, private images are shown only where that is allowed, and rows claim what holds."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dphyper.bench.catalog import METHODS
from dphyper.bench.method import Adaptation, Method
from dphyper.bench.runner import Runner
from dphyper.bench.store import Store
from dphyper.bench.tracking import Tracking
from dphyper.metrics.metric import METRICS
from dphyper.sweeps.plan import read_sweep

SweepFile = Callable[..., Path]
TUNING = "5"  # of digits8


def rows_of(path: Path) -> pd.DataFrame:
    """The rows of a sweep file's cells, run one after the other in this process."""
    sweep, cells = read_sweep(str(path))
    store = Store(sweep.store_path)
    runner = Runner(store, sweep.performance, Tracking("off", store.root, sweep.name), sweep.name)
    assert {runner.run(cell)["status"] for cell in cells} == {"done"}
    return store.rows()


def test_an_exception_without_a_text_is_a_failed_cell(
    sweep_file: SweepFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any, **keywords: Any) -> None:
        raise ValueError

    path = sweep_file(grid=[{"method": ["public_only"]}])
    sweep, (cell,) = read_sweep(str(path))
    runner = Runner(Store(tmp_path / "store"), sweep.performance, Tracking("off", tmp_path, "x"), "x")
    monkeypatch.setattr(METHODS["public_only"], "adapt", fails)
    row = runner.run(cell)
    assert (row["status"], row["error"]) == ("failed", "ValueError")


@pytest.mark.parametrize(("task", "show", "shown"), [("8", False, False), ("8", True, True), (TUNING, False, True)])
def test_private_images_are_shown_only_where_that_is_allowed(
    sweep_file: SweepFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    show: bool,
    shown: bool,
) -> None:
    data = {"source": "digits8", "image_size": 8, "cluster_sizes": [60], "show_reference": show}
    path = sweep_file(grid=[{"method": ["public_only"]}], cell={"data": data, "task": task})
    sweep, (cell,) = read_sweep(str(path))
    runner = Runner(Store(tmp_path / "store"), sweep.performance, Tracking("off", tmp_path, "x"), "x")
    # Of digits, which are anyone's, the source says that they may be shown; here it does not.
    object.__setattr__(runner.public.collection(cell.data), "show_reference", False)
    row = runner.run(cell)
    assert (runner.store.directory(row["cell"]) / "reference.png").exists() is shown
    assert ("sheet of reference images" in row["statement"]) is shown


def test_os_noise_differs_between_runs(sweep_file: SweepFile, tmp_path: Path) -> None:
    distances: dict[str, list[float]] = {"public_only": [], "hypernetwork": []}
    for name in ("first", "second"):
        cell = {"reproducible_noise": False, "epsilon": 1}
        path = sweep_file(name=name, store=str(tmp_path / name), cell=cell, grid=[{"method": list(distances)}])
        for row in rows_of(path).itertuples():
            distances[row.method].append(row.denoising_loss)
            assert row.private
    assert distances["public_only"][0] == distances["public_only"][1]
    assert distances["hypernetwork"][0] != distances["hypernetwork"][1]


def test_releases_on_a_grid_are_what_the_ledger_says(sweep_file: SweepFile, tmp_path: Path) -> None:
    cell = {"reproducible_noise": False, "epsilon": 1}
    rows, store = (
        rows_of(sweep_file(cell=cell, grid=[{"method": ["hypernetwork", "dp_sgd"]}])),
        Store(tmp_path / "store"),
    )
    assert len(rows) == 2
    for row in rows.itertuples():
        ledger = json.loads((store.directory(row.cell) / "ledger.json").read_text())
        assert ledger["noise"] == {"source": "os", "sampler": "rounded"}
        assert "rounded to a grid that the noise covers" in row.statement
    assert rows["private"].all()


def test_a_private_method_without_a_budget_claims_nothing(sweep_file: SweepFile, tmp_path: Path) -> None:
    cell = {"reproducible_noise": False, "epsilon": math.inf}
    rows = rows_of(sweep_file(cell=cell, grid=[{"method": ["dp_sgd", "public_only"]}])).set_index("method")
    assert rows["private"].to_dict() == {"dp_sgd": False, "public_only": True}
    assert rows["statement"]["dp_sgd"].startswith("No privacy guarantee: private records were used without noise")


@pytest.mark.parametrize(
    ("task", "method", "looked"),
    [("8", "public_only", False), (TUNING, "public_only", True), ("8", "nonprivate_lora", True)],
)
def test_private_records_are_compared_with_only_where_nothing_is_to_be_kept(
    sweep_file: SweepFile, task: str, method: str, looked: bool
) -> None:
    cell = {"task": task, "reproducible_noise": False}
    metrics = {name for name in rows_of(sweep_file(grid=[{"method": [method]}], cell=cell)) if name in METRICS}
    assert ({"nearest_private", "nearest_heldout"} <= metrics) is looked
    assert "frechet" in metrics


def test_what_is_not_finite_is_a_failed_row_where_it_arises(
    sweep_file: SweepFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sweep_file(grid=[{"method": ["nonprivate_lora"]}], options={"nonprivate_lora": {"steps": 1}})
    sweep, (cell,) = read_sweep(str(path))

    def failed(what: str, name: str, value: Any) -> None:
        store = Store(tmp_path / what)
        runner = Runner(store, sweep.performance, Tracking("off", tmp_path, "x"), "x")
        with monkeypatch.context() as patch:
            patch.setattr(f"dphyper.{name}", value)
            row = runner.run(cell)
        assert (row["status"], "metrics" in row) == ("failed", False)
        assert row["error"].startswith(f"FloatingPointError: {what}")
        assert "it has diverged" in row["error"]
        assert (store.directory(cell.id) / "theta.safetensors").exists() is (what != "θ of the adaptation")

    real = METHODS["nonprivate_lora"].adapt

    def diverges(self: Method, *given: Any) -> Adaptation:
        return Adaptation(theta=real(self, *given).theta * math.nan)

    failed("θ of the adaptation", "methods.nonprivate_lora.NonprivateLoRA.adapt", diverges)
    failed("samples", "targets.lora.LoRADiffusion._denoise", lambda self, theta, x, *given, **more: x * math.inf)
    failed("metric kernel", "metrics.kernel.Kernel.compute", classmethod(lambda cls, given: math.nan))


def test_parameters_without_their_ledger_claim_nothing(sweep_file: SweepFile, tmp_path: Path) -> None:
    cell = {"reproducible_noise": False, "epsilon": 1}
    path = sweep_file(cell=cell, grid=[{"method": ["dp_sgd"]}])
    rows_of(path)
    sweep, (only,) = read_sweep(str(path))
    store = Store(tmp_path / "store")
    folder = store.directory(only.id)
    for damage, said in (
        (lambda: (folder / "theta.safetensors").write_bytes(b"half"), "is damaged"),
        (lambda: (folder / "ledger.json").write_text("{"), "is damaged (JSONDecodeError"),
        ((folder / "ledger.json").unlink, "has no ledger beside it, so that nothing can be claimed"),
    ):
        damage()
        (folder / "row.json").unlink()
        runner = Runner(store, sweep.performance, Tracking("off", store.root, sweep.name), sweep.name)
        row = runner.run(only)
        assert row["status"] == "failed"
        assert said in row["error"]
        assert f"dphyper reset {only.id} --store {store.root}" in row["error"]
