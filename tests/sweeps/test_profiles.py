"""The shipped sweeps of hours: they name cells, say what they cost, and run to their end when they are made small."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dphyper.bench import estimate as estimating
from dphyper.bench.estimate import estimate
from dphyper.bench.public_work import PublicWork
from dphyper.bench.store import Store
from dphyper.bench.tracking import Tracking
from dphyper.core.specs import Performance
from dphyper.sweeps.plan import read_sweep
from dphyper.sweeps.reduced import reduced

ROOT = Path(__file__).parents[2] / "sweeps"
PROFILES = ("cifar10-16", "cifar10-32", "sd-lora")


@pytest.mark.parametrize("name", PROFILES)
def test_the_small_sweep_has_the_methods_and_the_kind_of_target_of_the_large_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep, cells = read_sweep(str(ROOT / f"{name}.yaml"))
    small = reduced(sweep)
    few = small.cells()
    assert {cell.method for cell in few} == {cell.method for cell in cells}
    assert {cell.base.kind for cell in few} == {cell.base.kind for cell in cells}
    assert {bool(cell.base.pretrained) for cell in few} == {bool(cell.base.pretrained) for cell in cells}
    assert {cell.data.channels for cell in few} == {cell.data.channels for cell in cells} == {3}
    assert len(few) == len({cell.method for cell in cells}) < len(cells)
    assert small.store_path != sweep.store_path
    assert max(cell.protocol.num_images for cell in few) < 100


@pytest.mark.slow
@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_runs_to_its_end_when_it_is_made_small(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dphyper: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    small = [str(ROOT / f"{name}.yaml"), "--reduced", "--performance.workers", "1", "--wandb", "off"]
    assert dphyper("sweep", "plan", *small) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^estimate: \d+ min for \d pieces of public work .* and \d+ min for \d+ cells", printed, re.M)
    assert dphyper("sweep", "run", *small) == 0
    rows = Store(f"runs/{name} reduced").rows()
    _, cells = read_sweep(str(ROOT / f"{name}.yaml"))
    assert {*rows["method"]} == {cell.method for cell in cells}
    assert {*rows["status"]} == {"done"}, rows["error"].tolist()


def test_an_estimate_counts_shared_work_once_and_grows_with_the_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep, _ = read_sweep(str(ROOT / "cifar10-16.yaml"))
    cells = reduced(sweep).cells()
    monkeypatch.setattr(estimating, "_seconds_of_a_pass", lambda cell, public: 60.0)
    work = PublicWork(Performance(cache=str(tmp_path / "cache"), threads=1), Tracking("off", tmp_path, "t"))
    (cell,) = [cell for cell in cells if cell.method == "dp_sgd"]
    passes = estimating._cell_passes(cell)
    assert passes > cell.protocol.num_images * cell.base.sampling_steps, "and its gradients"
    again = dataclasses.replace(cell, seed=1)
    one, two = estimate([cell], work)[0], estimate([cell, again], work)[0]
    shared = 3 * cell.base.train_steps * cell.base.batch_size  # minutes
    assert f"estimate: {estimating._span(60.0 * shared)} for 1 pieces" in one
    assert f"estimate: {estimating._span(60.0 * shared)} for 1 pieces" in two
    assert f"{estimating._span(60.0 * passes)} for 1 cells" in one
    assert f"{estimating._span(120.0 * passes)} for 2 cells" in two
    assert estimate([], work) == []
