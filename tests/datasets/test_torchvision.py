"""Torchvision's sets, by stand-ins for its loaders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets.torchvision import Torchvision


def small(source: str, **changes: Any) -> DataSpec:
    return DataSpec(**{"source": source, "image_size": 8, "cluster_sizes": (10,), "min_task_size": 5, **changes})


class Omniglot:
    """Stands in for torchvision's loader, which wants the published archive by its hash."""

    def __init__(self, root: str, background: bool) -> None:
        self.target_folder = root


def test_omniglot_takes_alphabets_as_families(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any, digits: Any
) -> None:
    write["folder"](tmp_path, {f"{alphabet}/character01": digits.families[alphabet] for alphabet in digits.classes})
    monkeypatch.setattr(torchvision.datasets, "Omniglot", Omniglot)
    collection = Torchvision.load(small("torchvision:Omniglot", root=str(tmp_path), private=("2", "3"), tuning=("4",)))
    assert [len(collection.task(family)) for family in digits.classes] == [digits.size] * len(digits.classes)


class CIFAR10:
    """Stands in for torchvision's loader; colour arrays, labels as a list."""

    classes = tuple("012345")

    def __init__(self, root: str, train: bool) -> None:
        rows = slice(0, None, 2) if train else slice(1, None, 2)
        images = np.random.default_rng(0).integers(0, 256, (180, 8, 8), np.uint8)
        self.data, self.targets = np.stack([images[rows]] * 3, axis=-1), np.repeat(np.arange(6), 30)[rows].tolist()


def test_cifar10_is_read_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", CIFAR10)
    collection = Torchvision.load(small("torchvision:CIFAR10", channels=3))
    assert collection.records.shape[1:] == (8, 8, 3)
    assert {t.id: (len(t), len(t.reference)) for t in collection.select("private")} == {"4": (15, 15), "5": (15, 15)}


def absent(root: str, **_: object) -> None:
    raise RuntimeError("Dataset not found.\nNo network.")


def test_a_set_that_is_nowhere_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="unknown torchvision set 'CIFAR'"):
        Torchvision.load(small("torchvision:CIFAR"))
    monkeypatch.setattr(torchvision.datasets, "MNIST", absent)
    with pytest.raises(UserError, match=r"download failed .*: put MNIST/raw/") as caught:
        Torchvision.load(small("torchvision:MNIST", root=str(tmp_path)))
    assert "\n" not in str(caught.value)
