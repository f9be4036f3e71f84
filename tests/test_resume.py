"""A run that was interrupted goes on from what it released, and draws again only what nobody can have seen."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dphyper.bench.privacy.ledger import Ledger
from dphyper.bench.privacy.noise import NoiseSource
from dphyper.bench.runner import Runner
from dphyper.bench.specs import BaseSpec, Cell, DataSpec, Performance, Protocol
from dphyper.bench.store import Row, Store
from dphyper.bench.tracking import Tracking


class KilledError(Exception):
    """Stands for the end of the process."""


def run(store: Path, cache: Path, method: str, **options: Any) -> tuple[Row, Path]:
    """Row and folder of one small cell, in this process."""
    cell = Cell(
        data=DataSpec(source="digits8", image_size=8, cluster_sizes=(60,)),
        base=BaseSpec(block_out_channels=(16, 32), train_steps=20, batch_size=32, sampling_steps=3),
        protocol=Protocol(num_images=32),
        task="8",
        n=64,
        method=method,
        epsilon=4.0,
        options=options,
        reproducible_noise=True,
    )
    runner = Runner(Store(store), Performance(cache=str(cache), threads=1), Tracking("off", store, "t"), "t")
    row = runner.run(cell)
    return row, runner.store.directory(row["cell"])


def kill_after(monkeypatch: pytest.MonkeyPatch, name: str, calls: int) -> None:
    """Let the process end right after the ledger has done ``name`` that many times."""
    done, real = 0, getattr(Ledger, name)

    def counted(*args: Any, **kwargs: Any) -> None:
        nonlocal done
        real(*args, **kwargs)
        done += 1
        if done == calls:
            raise KilledError(f"after {name}")

    monkeypatch.setattr(Ledger, name, counted)


CASES = [
    ("dp_merf", {"fit_steps": 3}, "complete", 1),
    ("dp_feta", {"queries": 1, "steps": 2}, "complete", 1),
    ("dp_feta", {"queries": 1, "steps": 2}, "charge", 2),
]


@pytest.mark.parametrize(("method", "options", "event", "calls"), CASES)
def test_what_was_released_is_used_again_and_the_rest_is_drawn_anew(
    cache: Path, tmp_path: Path, method: str, options: dict[str, Any], event: str, calls: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, event, calls)
        row, folder = run(tmp_path / "store", cache, method, **options)
    assert (row["status"], row["error"]) == ("failed", f"KilledError: after {event}")
    seen = json.loads((folder / "ledger.json").read_text())["charges"]
    assert (len(seen), seen[0]["complete"], (folder / "generator.npy").exists()) == (calls, True, True)

    row, folder = run(tmp_path / "store", cache, method, **options)
    assert (row["status"], row["epsilon_spent"]) == ("done", pytest.approx(4.0, rel=1e-4))
    charges = json.loads((folder / "ledger.json").read_text())["charges"]
    assert charges[0] == seen[0]
    assert all(charge["complete"] for charge in charges)
    assert not (folder / "generator.npy").exists()
    assert (folder / "ledger.interrupted.json").exists() is (event == "charge")


def test_the_random_numbers_of_a_release_are_met_again(cache: Path, tmp_path: Path) -> None:
    def theta(store: str) -> tuple[torch.Tensor, Path]:
        _, folder = run(tmp_path / store, cache, "dp_merf", fit_steps=3)
        return load_file(folder / "theta.safetensors")["theta"], folder

    whole, _ = theta("whole")
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, "complete", 1)
        _, folder = run(tmp_path / "killed", cache, "dp_merf", fit_steps=3)
    again, _ = theta("killed")
    assert torch.equal(again, whole)

    (folder / "theta.safetensors").unlink()
    np.save(folder / "generator.npy", torch.Generator().manual_seed(7).get_state().numpy())
    (folder / "row.json").unlink()
    other, _ = theta("killed")
    assert not torch.equal(other, whole)


def test_releases_without_their_random_numbers_are_not_used(cache: Path, tmp_path: Path) -> None:
    _, folder = run(tmp_path / "store", cache, "dp_merf", fit_steps=3)
    (folder / "row.json").unlink()
    (folder / "theta.safetensors").unlink()
    row, _ = run(tmp_path / "store", cache, "dp_merf", fit_steps=3)
    assert row["status"] == "failed"
    assert "'generator.npy') is gone: delete the folder to start over" in row["error"]


def test_a_generator_takes_all_its_state_from_the_source() -> None:
    """Against NumPy's Mersenne Twister with the same key; a seed would leave 32 bits to try."""
    key = np.frombuffer(np.random.default_rng(3).bytes(8 * 624), np.uint64) >> np.uint64(32)
    twister = np.random.RandomState()
    twister.set_state(("MT19937", key.astype(np.uint32), 624))
    drawn = torch.rand(2000, generator=NoiseSource.reproducible(3).generator())
    expected = (twister.randint(2**32, size=2000, dtype=np.uint32) % 2**24) / 2**24
    assert drawn.tolist() == expected.tolist()
    seeded = [torch.rand(3, generator=torch.Generator().manual_seed(7 + shift)) for shift in (0, 5 << 32, 1)]
    assert torch.equal(seeded[0], seeded[1])
    assert not torch.equal(seeded[0], seeded[2])
