"""A run that was killed goes on from what it released and draws again what nobody saw; one that failed pays for it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from dphyper.bench.catalog import METHODS
from dphyper.bench.method import Adaptation, Method
from dphyper.bench.runner import Runner
from dphyper.bench.store import Row, Store
from dphyper.bench.tracking import Tracking
from dphyper.core.specs import BaseSpec, Cell, DataSpec, Performance, Protocol
from dphyper.metrics.evaluation import Evaluator
from dphyper.privacy.budget import Budget
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.private_data import PrivateData
from dphyper.targets.lora import LoRADiffusion


class KilledError(BaseException):
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
        with pytest.raises(KilledError):
            run(tmp_path / "store", cache, method, **options)
    (folder,) = (tmp_path / "store" / "cells").iterdir()
    seen = json.loads((folder / "ledger.json").read_text())["charges"]
    assert (len(seen), seen[0]["complete"], (folder / "row.json").exists()) == (calls, True, False)

    row, _ = run(tmp_path / "store", cache, method, **options)
    assert (row["status"], row["epsilon_spent"]) == ("done", pytest.approx(4.0, rel=1e-4))
    charges = json.loads((folder / "ledger.json").read_text())["charges"]
    assert charges[0] == seen[0]
    assert all(charge["complete"] and charge["attempt"] == 0 for charge in charges)
    assert (folder / "ledger.interrupted.json").exists() is (event == "charge")


def test_a_release_that_runs_out_of_memory_is_made_once_more_with_half_batches(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough, sizes, real = 40, [], METHODS["dp_merf"].adapt

    def adapt(self: Method, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        release = private.release_mean

        class Door:
            def __getattr__(self, name: str) -> Any:
                return getattr(private, name)

            def release_mean(self, embed: Any, *args: Any, **kwargs: Any) -> Any:
                def greedy(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
                    sizes.append(len(x))
                    if len(x) > enough:
                        raise MemoryError
                    return embed(x, rng)

                return release(greedy, *args, **kwargs)

        return real(self, Door(), budget, rng)  # type: ignore[arg-type]

    monkeypatch.setattr(METHODS["dp_merf"], "adapt", adapt)
    row, folder = run(tmp_path / "store", cache, "dp_merf", fit_steps=3)
    assert (row["status"], row["epsilon_spent"]) == ("done", pytest.approx(4.0, rel=1e-4))  # paid for once
    assert max(sizes) == 64
    assert 32 in sizes
    assert len(json.loads((folder / "ledger.json").read_text())["charges"]) == 1

    enough = 10  # half as many do not help either
    row, _ = run(tmp_path / "other", cache, "dp_merf", fit_steps=3)
    assert (row["status"], row["error"]) == ("failed", "MemoryError")


def test_the_random_numbers_of_a_release_are_met_again(cache: Path, tmp_path: Path) -> None:
    """Those of the run come from the seed, those of its losses died with it, and no file keeps any."""

    def theta(store: str) -> tuple[torch.Tensor, Path]:
        _, folder = run(tmp_path / store, cache, "dp_merf", fit_steps=3)
        return load_file(folder / "theta.safetensors")["theta"], folder

    whole, _ = theta("whole")
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, "complete", 1)
        with pytest.raises(KilledError):
            theta("killed")
    again, folder = theta("killed")
    assert torch.equal(again, whole)
    assert not (folder / "generator.npy").exists()


def failing(patch: pytest.MonkeyPatch, method: str, *, after: bool) -> None:
    """Let ``adapt`` fail before or after all its releases."""
    real = METHODS[method].adapt

    def adapt(self: Method, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        if after:
            real(self, private, budget, rng)
        raise ValueError

    patch.setattr(METHODS[method], "adapt", adapt)


@pytest.mark.parametrize(
    ("method", "options", "after", "status"),
    [
        ("dp_sgd", {"steps": 2}, True, "failed"),  # its steps were seen to fail
        ("dp_sgd", {"steps": 2}, False, "done"),  # nothing had been released
        ("dp_merf", {"fit_steps": 3}, True, "done"),  # goes on from the release that it had
    ],
)
def test_a_run_that_failed_after_a_release_has_spent_it(
    cache: Path, tmp_path: Path, method: str, options: dict[str, Any], after: bool, status: str
) -> None:
    for _ in range(3):  # trying again and again is no way out
        with pytest.MonkeyPatch.context() as patch:
            failing(patch, method, after=after)
            row, folder = run(tmp_path / "store", cache, method, **options)
        assert row["status"] == "failed"
    row, folder = run(tmp_path / "store", cache, method, **options)
    assert row["status"] == status
    charges = json.loads((folder / "ledger.json").read_text())["charges"]
    assert [charge["attempt"] for charge in charges] == [int(status == "failed")]
    if status == "failed":
        assert "with what 1 failed attempt released" in row["error"]
    else:
        assert row["epsilon_spent"] == pytest.approx(4.0, rel=1e-4)


def test_a_method_that_releases_what_it_does_not_declare_fails(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def adapt(self: Any, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        options = dataclasses.replace(self.options, l2_clip_norm=1.0)
        (steps,) = self.mechanisms(budget, options)
        list(private.gradient_steps(lambda x, rng: x.flatten(1), steps, role="pixels"))
        return Adaptation(theta=self.target.initial())

    monkeypatch.setattr(METHODS["dp_sgd"], "adapt", adapt)
    row, _ = run(tmp_path / "store", cache, "dp_sgd", steps=2)
    assert row["status"] == "failed"
    assert "role 'pixels' released PoissonGradientSteps" in row["error"]
    assert "which its method does not declare" in row["error"]


@pytest.mark.parametrize("method", ["hypernetwork", "dp_merf"])
def test_a_run_killed_after_its_release_has_the_row_of_one_that_was_not(
    cache: Path, tmp_path: Path, method: str
) -> None:
    options = {"fit_steps": 3} if method == "dp_merf" else {"train_steps": 15, "tasks": 4, "support": 32, "width": 32}
    whole, _ = run(tmp_path / "whole", cache, method, **options)
    with pytest.MonkeyPatch.context() as patch:

        def killed(*args: Any) -> None:
            raise KilledError("in the evaluation")

        patch.setattr(Evaluator, "judge", killed)
        with pytest.raises(KilledError):
            run(tmp_path / "killed", cache, method, **options)
    (folder,) = (tmp_path / "killed" / "cells").iterdir()
    with safe_open(folder / "theta.safetensors", framework="pt") as file:
        beside = file.metadata()
    assert not (folder / "row.json").exists()
    again, _ = run(tmp_path / "killed", cache, method, **options)
    times = {"seconds_adapt", "seconds_evaluate", "provenance"}  # the last is under the key of its store
    assert {**again, **dict.fromkeys(times)} == {**whole, **dict.fromkeys(times)}
    assert again["seconds_adapt"] == json.loads(beside["seconds"]) > 0
    assert again["diagnostics"] == json.loads(beside["diagnostics"])
    assert ("embedding_shift" in again["diagnostics"]) is (method == "hypernetwork")


def test_parameters_of_another_adapter_of_equal_length_are_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their length would not tell; what each number stands for does."""
    row, _ = run(tmp_path / "store", cache, "dp_merf", fit_steps=3)
    assert row["status"] == "done"
    monkeypatch.setattr(LoRADiffusion, "layout", "of other layers")
    row, _ = run(tmp_path / "store", cache, "dp_merf", fit_steps=3)
    assert row["status"] == "failed"
    assert "made for another rank, other layers or another seed" in row["error"]
    monkeypatch.undo()
    row, _ = run(tmp_path / "store", cache, "dp_merf", fit_steps=3)
    assert row["status"] == "done"


def test_no_time_of_a_private_selection_is_kept(cache: Path, tmp_path: Path) -> None:
    row, folder = run(tmp_path / "store", cache, "dp_sgd_tuned", **METHODS["dp_sgd_tuned"].quick_options)
    with safe_open(folder / "theta.safetensors", framework="pt") as file:
        assert file.metadata()["seconds"] == "null"
    assert not {"seconds_adapt", "seconds_evaluate"} & {*row}
