"""Public work: keys of what is read, golden numbers behind their versions, and trainings that go on."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dphyper.bench import public_work, training
from dphyper.bench.catalog import METHODS, canonical
from dphyper.bench.method import Method
from dphyper.bench.pretraining import PRETRAINING_VERSION, Pretraining
from dphyper.bench.public import DEALER_VERSION, PublicTasks
from dphyper.bench.public_work import PublicWork
from dphyper.bench.tracking import Tracking
from dphyper.core.specs import BaseSpec, Cell, DataSpec, Performance, Protocol, content_hash
from dphyper.methods.hypernetwork import Hypernetwork
from dphyper.metrics.evaluation import Evaluator
from dphyper.targets.unet import UNetBase

CELL = Cell(
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
    method="hypernetwork",
    embedding_dim=4,
    options={"train_steps": 20, "tasks": 4, "support": 32, "query": 4, "width": 32},
)


class KilledError(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def work(tmp_path: Path) -> Callable[[], PublicWork]:
    """A fresh process's view of one cache."""
    performance = Performance(cache=str(tmp_path / "cache"), threads=1)
    return lambda: PublicWork(performance, Tracking("off", tmp_path, "t"))


def keys(work: PublicWork, cell: Cell) -> tuple[str, str]:
    """Of the base model and of the public phase."""
    cell = canonical(cell)
    method = work.untrained_method(cell, work.untrained_base(cell))
    return work.base_key(cell.data, cell.base), work._phase_key(cell, method)


def changed(cell: Cell = CELL, **changes: Any) -> Cell:
    """A cell with other values, dotted where nested."""
    for name, value in changes.items():
        outer, _, inner = name.partition("__")
        new = {**cell.options, **value} if outer == "options" else value
        cell = dataclasses.replace(
            cell, **{outer: dataclasses.replace(getattr(cell, outer), **{inner: value}) if inner else new}
        )
    return cell


# What changes and which keys then change: of the base model, of the phase.
READ = [
    ({"base__seed": 1}, (True, True)),
    ({"base__train_steps": 21}, (True, True)),
    ({"data__private": ("3",)}, (True, True)),  # 8 is public then
    ({"base__rank": 5}, (False, True)),
    ({"base__layers": ("time",)}, (False, True)),
    ({"options": {"train_steps": 21}}, (False, True)),
    ({"embedding_dim": 5}, (False, True)),
    ({"base__sampling_steps": 4}, (False, False)),
    ({"epsilon": 8.0}, (False, False)),
    ({"n": 32}, (False, False)),
    ({"seed": 1}, (False, False)),
    ({"protocol__num_images": 33}, (False, False)),
]


def test_the_two_step_method_has_the_hypernetworks_network(work: Callable[[], PublicWork]) -> None:
    two_steps = {**CELL.options, "release_share": 0.3, "steps": 4}
    assert keys(work(), CELL) == keys(work(), changed(method="hypernetwork_then_dp_sgd", options=two_steps))
    other = changed(method="hypernetwork_then_dp_sgd", options={**two_steps, "width": 16})
    assert keys(work(), CELL)[1] != keys(work(), other)[1]


@pytest.mark.parametrize(("changes", "moved"), READ, ids=str)
def test_a_key_is_made_of_what_is_read(
    work: Callable[[], PublicWork], changes: dict[str, Any], moved: tuple[bool, bool]
) -> None:
    before, after = keys(work(), CELL), keys(work(), changed(**changes))
    assert tuple(old != new for old, new in zip(before, after, strict=True)) == moved


@pytest.mark.parametrize(
    ("holder", "name", "moved"),
    [(public_work, "DEALER_VERSION", (True, True)), (UNetBase, "version", (True, True)),
     (public_work, "PRETRAINING_VERSION", (True, True)),
     (Hypernetwork, "phase_version", (False, True))],
)  # fmt: skip
def test_a_raised_version_is_another_key(
    work: Callable[[], PublicWork], monkeypatch: pytest.MonkeyPatch, holder: Any, name: str, moved: tuple[bool, bool]
) -> None:
    before = keys(work(), CELL)
    monkeypatch.setattr(holder, name, getattr(holder, name) + 1)
    assert tuple(old != new for old, new in zip(before, keys(work(), CELL), strict=True)) == moved


def test_no_key_is_made_of_source_text() -> None:
    text = Path(public_work.__file__).read_text()
    assert "inspect" not in text
    assert "getsource" not in text


# What the versions stand for. Who changes the meaning of one of these raises its version and the numbers with it.
EPISODES = {1: "9b58291294a3b262"}
LOSSES = {
    ("Pretraining", 2): (1.0221, 0.7503),
    ("Hypernetwork", 1): (0.7388, 0.7854),
    ("SubspaceDPSGD", 1): (0.7416, 0.7426),
}


def test_episodes_of_this_version_of_the_dealer(work: Callable[[], PublicWork]) -> None:
    collection = work().collection(CELL.data)
    episodes = PublicTasks(
        collection,
        torch.from_numpy,
        seed=0,
        tasks=3,
        support=20,
        query=4,
        steps=6,
        mixture=0.5,
    )
    dealt = [
        [part.tolist() for part in (episode.support_TS, episode.query_TQ, episode.task_T)]
        for episode in episodes.train_dataloader()
    ]
    assert content_hash(dealt) == EPISODES[DEALER_VERSION]


def losses(monkeypatch: pytest.MonkeyPatch, kind: type) -> list[float]:
    """Every training loss of a kind of module, from now on."""
    found: list[float] = []
    step = kind.training_step  # type: ignore[attr-defined]

    def watched(self: Any, *args: Any) -> Any:
        loss = step(self, *args)
        found.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(kind, "training_step", watched)
    return found


@pytest.mark.parametrize(
    ("method", "options"), [("hypernetwork", CELL.options), ("subspace_dp_sgd", {"train_steps": 20})]
)
def test_training_of_these_versions(
    work: Callable[[], PublicWork], monkeypatch: pytest.MonkeyPatch, method: str, options: dict[str, Any]
) -> None:
    kind = METHODS[method]
    cell = canonical(dataclasses.replace(CELL, method=method, options=options))
    base, phase = losses(monkeypatch, Pretraining), losses(monkeypatch, kind)
    work().method(cell)
    assert (len(base), len(phase)) == (20, 20)
    # Floating-point results differ a little between machines; another meaning differs by more.
    assert (base[0], base[-1]) == pytest.approx(LOSSES["Pretraining", PRETRAINING_VERSION], rel=0.01)
    assert (phase[0], phase[-1]) == pytest.approx(LOSSES[kind.__name__, kind.phase_version], rel=0.01)


@pytest.mark.parametrize("kill", ["base", "phase"])
def test_what_was_killed_goes_on_from_its_checkpoint(
    work: Callable[[], PublicWork], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: str
) -> None:
    monkeypatch.setattr(training, "INTERVAL", 10)
    cell = canonical(CELL)

    def weights() -> dict[str, torch.Tensor]:
        work().method(cell)
        (folder,) = (tmp_path / "cache" / "public").glob("[!.]*/")
        return load_file(folder / "weights.safetensors")

    def kill_in_the_middle(kind: type) -> None:
        step = kind.training_step  # type: ignore[attr-defined]

        def training_step(self: Any, *args: Any) -> Any:
            if self.global_step == 12:
                raise KilledError
            return step(self, *args)

        patch.setattr(kind, "training_step", training_step)

    whole = weights()
    (tmp_path / "cache").rename(tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        kill_in_the_middle(Pretraining if kill == "base" else Hypernetwork)
        with pytest.raises(KilledError):
            weights()
    trained = losses(monkeypatch, Pretraining if kill == "base" else Hypernetwork)
    again = weights()
    assert len(trained) == 15  # from step 5 on
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_damaged_base_model_is_made_again(
    work: Callable[[], PublicWork], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = canonical(dataclasses.replace(CELL, method="public_only", options={}))
    work().method(cell)
    (file,) = (tmp_path / "cache" / "base").glob("*/unet/*.safetensors")
    before = file.read_bytes()
    file.write_bytes(before[:-100] + bytes(100))
    capsys.readouterr()
    work().method(cell)
    out = capsys.readouterr().out
    assert "is damaged" in out
    assert "training base model: 20 steps" in out
    assert file.read_bytes() == before
    work().method(cell)
    assert "training" not in capsys.readouterr().out


def test_features_of_real_images_are_computed_once(
    work: Callable[[], PublicWork], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = Evaluator(Protocol(num_images=8), weights="unused", device=torch.device("cpu"))
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
    first = work().features(evaluator, images)
    monkeypatch.setattr(Evaluator, "features", None)
    np.testing.assert_array_equal(work().features(evaluator, images), first)
    with pytest.raises(TypeError):
        work().features(evaluator, images[:5])


def test_seconds_of_a_phase_are_those_of_its_training(work: Callable[[], PublicWork], tmp_path: Path) -> None:
    _, seconds = work().method(canonical(CELL))
    (file,) = (tmp_path / "cache" / "public").glob("[!.]*/seconds.json")
    assert work().method(canonical(CELL))[1] == seconds == json.loads(file.read_text())["seconds"] > 0
    assert isinstance(work().method(canonical(CELL))[0], Method)
