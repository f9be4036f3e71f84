"""A model that others trained, in the harness: trained on where asked, encodings kept for public records alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dphyper.bench.public_work import PublicWork
from dphyper.bench.tracking import Tracking
from dphyper.core.errors import UserError
from dphyper.core.specs import BaseSpec, Cell, DataSpec, Performance
from dphyper.targets.registry import TARGETS
from dphyper.targets.spaces import Latents
from dphyper.targets.tiny import TINY, save_tiny


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny pipeline of each kind."""
    folder = tmp_path_factory.mktemp("originals")
    for kind in TINY:
        save_tiny(kind, folder / kind, image_size=8, channels=1)
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Callable[[], PublicWork]:
    """A fresh process's view of one cache."""
    performance = Performance(cache=str(tmp_path / "cache"), threads=1)
    return lambda: PublicWork(performance, Tracking("off", tmp_path, "t"))


def cell_of(folder: Path, **changes: Any) -> Cell:
    kind = folder.name
    base = {**TARGETS[kind].quick_spec, "batch_size": 8, "learning_rate": 1e-3, **changes}
    return Cell(
        data=DataSpec(source="digits8", image_size=8, cluster_sizes=(60,)),
        base=BaseSpec(kind=kind, pretrained=str(folder), **base),
        task="8",
        method="public_only",
    )


def weights(model: Any) -> dict[str, torch.Tensor]:
    """Of the part that is trained on, by name."""
    return dict((model.bare if hasattr(model, "bare") else model.unet).named_parameters())


@pytest.mark.parametrize("kind", sorted(TINY))
def test_finetuning_moves_the_network_and_nothing_else(
    kind: str, originals: Path, work: Callable[[], PublicWork]
) -> None:
    as_it_is, trained = cell_of(originals / kind), cell_of(originals / kind, finetune_steps=2)
    before, after = work()._base(as_it_is), work()._base(trained)
    moved = {name for name, weight in weights(before).items() if not torch.equal(weight, weights(after)[name])}
    assert len(moved) > 0.8 * len(weights(before))
    for name, weight in before.named_parameters():
        if name.startswith(("space.", "text.")):
            assert torch.equal(weight, after.get_parameter(name)), name
    for name, weight in weights(before).items():
        torch.testing.assert_close(weights(after)[name], weight, rtol=0, atol=0.01)  # two small steps


def test_keys_tell_what_was_trained_from_what_was_not(originals: Path, work: Callable[[], PublicWork]) -> None:
    cell, other = cell_of(originals / "latent"), cell_of(originals / "unet")
    harness = work()

    def key(cell: Cell, **changes: Any) -> str:
        return harness.base_key(cell.data, replace(cell.base, **changes))

    assert key(cell) == key(cell, rank=3) == key(cell, guidance_scale=4.0) == key(cell, prompt="a cat")
    trained = key(cell, finetune_steps=2)
    assert trained == key(cell, finetune_steps=2, guidance_scale=4.0)
    others = [key(cell, finetune_steps=2, **change) for change in ({"prompt": "a cat"}, {"seed": 1}, {"batch_size": 9})]
    assert len({key(cell), trained, key(cell, finetune_steps=3), key(other), *others}) == 7


def test_encodings_of_public_records_are_made_once_and_none_of_private_ones_is_kept(
    originals: Path, work: Callable[[], PublicWork], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[int] = []
    real = Latents.encode

    def counted(self: Latents, records: Any, device: torch.device) -> torch.Tensor:
        made.append(len(records))
        return real(self, records, device)

    monkeypatch.setattr(Latents, "encode", counted)
    cell = cell_of(originals / "latent")
    base = work()._base(cell)
    collection = work().collection(cell.data)
    shown = np.unique(np.concatenate([task.indices for task in collection.tasks if task.split != "private"]))
    assert made == [len(shown)]
    work()._base(cell)
    assert made == [len(shown)], "the second process has found them"
    (path,) = (tmp_path / "cache").rglob("x.safetensors")
    assert len(load_file(path)["x"]) == len(shown)
    private = collection.records[collection.task("8").indices]
    x, known = base.encode(private), base.space._known  # type: ignore[attr-defined]
    assert len(known) == len({record.tobytes() for record in collection.records[shown]})
    known.clear()
    torch.testing.assert_close(base.encode(private), x, rtol=0, atol=0)
    base.remember(private[:1], x[:1] + 1)
    assert not torch.equal(base.encode(private), x), "what is remembered is taken"


def test_more_than_a_pretrained_model_cannot_be_finetuned() -> None:
    BaseSpec(pretrained="somewhere", finetune_steps=3)
    with pytest.raises(UserError, match=r"base.finetune_steps = 3: expected steps on a base.pretrained model"):
        BaseSpec(finetune_steps=3)
    with pytest.raises(UserError, match=r"base.finetune_steps = -1"):
        BaseSpec(pretrained="somewhere", finetune_steps=-1)
