"""Image sets by torchvision's loaders: ``torchvision:NAME``, found under ``data.root`` or downloaded into it.

Families are the classes; for Omniglot they are its 30 background alphabets. Guarantees that test images serve only as
reference of tuning and private classes. The downloads are torchvision's, whose mirrors are not always up. Files that
were put into place by hand are read in the same way.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torchvision import datasets

from dphyper.core.errors import UserError, unknown_name
from dphyper.core.specs import DataSpec
from dphyper.datasets._cut import Pool, PooledSource
from dphyper.datasets._families import by_label
from dphyper.datasets._files import visible_files
from dphyper.datasets._images import decode, fit_arrays


@dataclass(frozen=True, kw_only=True)
class Known:
    """Defaults and files of one set.

    Attributes:
        private: Default private families.
        tuning: Default tuning families.
        files: Where the published files belong under the root.
        licence: Source and licence.
    """

    private: tuple[str, ...]
    tuning: tuple[str, ...]
    files: str
    licence: str


_IDX = "{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz"

KNOWN = {
    "MNIST": Known(
        private=("3", "8"),
        tuning=("5",),
        files=f"MNIST/raw/{_IDX}",
        licence="MNIST, LeCun and Cortes 1998, CC BY-SA 3.0",
    ),
    "FashionMNIST": Known(
        private=("Bag", "Ankle boot"),
        tuning=("Dress",),
        files=f"FashionMNIST/raw/{_IDX}",
        licence="Fashion-MNIST, Xiao et al. 2017, MIT",
    ),
    "CIFAR10": Known(
        private=("automobile", "horse"),
        tuning=("cat",),
        files="cifar-10-python.tar.gz",
        licence="CIFAR-10, Krizhevsky 2009, research use",
    ),
    "CIFAR100": Known(
        private=("bicycle", "castle", "orange", "wolf"),
        tuning=("bus", "sunflower"),
        files="cifar-100-python.tar.gz",
        licence="CIFAR-100, Krizhevsky 2009, research use",
    ),
    "Omniglot": Known(
        private=("Bengali", "Braille", "Japanese_(katakana)"),
        tuning=("Korean",),
        files="omniglot-py/images_background.zip",
        licence="Omniglot, Lake et al. 2015, MIT",
    ),
}


class Torchvision(PooledSource):
    """Image sets by torchvision's loaders: ``torchvision:NAME``."""

    @classmethod
    def read(cls, spec: DataSpec) -> Pool:
        """Read one set with its test split.

        Raises:
            UserError: An unknown set, or one that is neither under ``spec.root`` nor can be downloaded.
        """
        if spec.argument not in KNOWN:
            raise unknown_name("torchvision set", spec.argument, KNOWN)
        known = KNOWN[spec.argument]
        images, families, test = (_omniglot if spec.argument == "Omniglot" else _train_and_test)(spec)
        return Pool(
            name=spec.argument,
            images=images,
            families=families,
            private=known.private,
            tuning=known.tuning,
            test=test,
            show_reference=True,
            licence=known.licence,
        )


def _open(spec: DataSpec, **split: bool) -> Any:
    """One split by torchvision's loader, read where it lies, else downloaded.

    Raises:
        UserError: Neither works; the message says where which files belong.
    """
    kind = getattr(datasets, spec.argument)
    try:
        try:
            return kind(spec.root, **split)
        except (RuntimeError, OSError):  # what the loaders raise for a set that is missing or incomplete
            return kind(spec.root, download=True, **split)
    except (RuntimeError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"data.source '{spec.source}' is not under data.root = '{spec.root}' and its download failed "
            f"({reason}): put {KNOWN[spec.argument].files} there, it is unpacked in place"
        ) from error


_Parts = tuple[NDArray[np.uint8], dict[str, NDArray[np.int64]], NDArray[np.bool_]]


def _train_and_test(spec: DataSpec) -> _Parts:
    """Images, families and the mask of the test images of a set with a ``train`` switch."""
    splits = [_open(spec, train=True), _open(spec, train=False)]
    names = [name.partition(" - ")[0] for name in splits[0].classes]  # MNIST calls its classes "0 - zero"
    return (
        np.concatenate([fit_arrays(np.asarray(split.data), spec) for split in splits]),
        by_label(np.concatenate([np.asarray(split.targets) for split in splits]), names),
        np.repeat([False, True], [len(split.data) for split in splits]),
    )


def _omniglot(spec: DataSpec) -> _Parts:
    """Images, alphabets and an all-false test mask: Omniglot has no test images of these alphabets."""
    folder = Path(_open(spec, background=True).target_folder)
    files, _ = visible_files(folder, folder.glob("*/*/*.png"))
    names = sorted({file.parts[-3] for file in files})
    images, _ = decode(((str(file), file) for file in files), spec)
    return (
        images,
        by_label(np.asarray([names.index(file.parts[-3]) for file in files]), names),
        np.zeros(len(files), np.bool_),
    )
