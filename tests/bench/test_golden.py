"""A few cells under reproducible noise give the numbers that they always gave: a rebuilt house changes no result.

On one machine they are equal to the last bit; between machines floating-point results differ a little, so that what a
method changes of the public model's loss is held to a hundredth.
"""

from pathlib import Path
from typing import Any

import pytest

from dphyper.bench.runner import Runner
from dphyper.bench.store import Row, Store
from dphyper.bench.tracking import Tracking
from dphyper.core.specs import BaseSpec, Cell, DataSpec, Performance, Protocol

NETWORK = {"train_steps": 15, "tasks": 4, "support": 32, "query": 4, "width": 32}
PHASE = {"train_steps": 20, "tasks": 4, "query": 4, "probe_tasks": 4, "probe_records": 4, "probe_multiplicity": 2}
PUBLIC = {"denoising_loss": 0.7180213, "frechet": 2718.878, "kernel": 1381.968}
# Options, and the denoising loss minus that of the public model.
CELLS: dict[str, tuple[dict[str, Any], float]] = {
    "hypernetwork": (NETWORK, 0.7166705 - 0.7180213),
    "dp_sgd": ({"steps": 2, "multiplicity": 1}, 0.7173641 - 0.7180213),
    "subspace_one_shot": (PHASE, 0.7167031 - 0.7180213),
    "dp_merf": (
        {"fit_steps": 2, "fit_batch_size": 8, "fitting": "samples", "frequencies": 16},
        0.7249824 - 0.7180213,
    ),
}


def run(folder: Path, cache: Path, method: str, options: dict[str, Any], seed: int = 0) -> Row:
    cell = Cell(
        data=DataSpec(source="digits8", image_size=8, cluster_sizes=(60,)),
        base=BaseSpec(
            block_out_channels=(16, 32),
            train_steps=20,
            batch_size=32,
            sampling_steps=3,
            learning_rate=1e-3,
            rank=4,
            layers=("attention", "time"),
        ),
        protocol=Protocol(num_images=32),
        task="8",
        n=64,
        embedding_dim=4,
        method=method,
        options=options,
        epsilon=1.0,
        seed=seed,
        reproducible_noise=True,
    )
    runner = Runner(
        Store(folder), Performance(cache=str(cache), threads=1), Tracking("off", folder, "golden"), "golden"
    )
    row = runner.run(cell)
    assert row["status"] == "done", row["error"]
    return row


def test_the_public_model_scores_what_it_always_did(cache: Path, tmp_path: Path) -> None:
    row = run(tmp_path, cache, "public_only", {})
    assert {name: row["metrics"][name] for name in PUBLIC} == pytest.approx(PUBLIC, rel=1e-3)
    assert row["real_metrics"]["frechet"] == pytest.approx(300.607, rel=1e-3)
    assert row["public_shift"] == pytest.approx(1244.048, rel=1e-3)
    assert row["parameters"] == 3392


@pytest.mark.parametrize("method", CELLS)
def test_a_method_changes_what_it_always_did(cache: Path, tmp_path: Path, method: str) -> None:
    options, gain = CELLS[method]
    row = run(tmp_path, cache, method, options)
    assert row["metrics"]["denoising_loss"] - PUBLIC["denoising_loss"] == pytest.approx(gain, rel=0.01)
    assert row["epsilon_spent"] == pytest.approx(1.0, rel=1e-6)
    if method == "hypernetwork":
        assert row["diagnostics"]["embedding_shift"] == pytest.approx(1.136685, rel=1e-3)


def test_another_seed_gives_other_numbers(cache: Path, tmp_path: Path) -> None:
    options, gain = CELLS["dp_sgd"]
    row = run(tmp_path, cache, "dp_sgd", options, seed=1)
    assert row["metrics"]["denoising_loss"] - PUBLIC["denoising_loss"] != pytest.approx(gain, rel=0.01)
