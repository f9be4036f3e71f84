"""Files in MNIST's format as a collection: ``idx:PATH``, a folder of images and labels, gzipped or not.

For each ``NAMEimages-idx3-ubyte`` the folder holds ``NAMElabels-idx1-ubyte``, with ``.gz`` or not, and with a dot in
place of the hyphen or not. Families are the labels. Files whose name says ``test`` or ``t10k`` are the test split,
which serves only as reference of tuning and private families. Guarantees that nothing is turned: EMNIST's letters
lie on their side in its files, and stay so.
"""

import gzip
import math
import re
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets._cut import Pool, PooledSource
from dphyper.datasets._families import by_label
from dphyper.datasets._files import visible_files
from dphyper.datasets._images import fit_arrays

_UNSIGNED_BYTES = 8  # the third byte of the head, for the only type that images have


class Idx(PooledSource):
    """Files in MNIST's format: ``idx:PATH``, a folder of images and labels."""

    @classmethod
    def read(cls, spec: DataSpec) -> Pool:
        """Read all pairs of files; private by default the last two labels, tuning the one before.

        Raises:
            UserError: The folder holds no such files, some have no partner, or one is corrupt.
        """
        root = Path(spec.argument)
        files, passed_over = visible_files(root, root.glob("*idx[13]-ubyte*")) if spec.argument else ([], [])
        found = {file.name: file for file in files}
        pairs = {name: _partner(name, found) for name in found if "idx3" in name}
        if not pairs:
            raise UserError(
                f"data.source '{spec.source}': expected idx:PATH with a folder of files such as "
                "train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz"
            )
        images, labels, test = [], [], []
        for name, partner in pairs.items():
            images.append(_array(found[name], 3))
            labels.append(_array(found[partner], 1))
            test.append(bool(re.search("t10k|test", name)))
            if len(images[-1]) != len(labels[-1]):
                raise UserError(
                    f"{found[name]} has {len(images[-1])} images and {partner} {len(labels[-1])} labels: expected one "
                    "for each"
                )
        classes, codes = np.unique(np.concatenate(labels), return_inverse=True)
        return Pool(
            name=root.name or root.resolve().name,
            images=np.concatenate([fit_arrays(part, spec) for part in images if len(part)]),
            families=by_label(codes, classes.tolist()),
            test=np.repeat(test, [len(part) for part in images]),
            passed_over=passed_over,
            licence=f"images of {root}, under their owner's terms",
        )


def _partner(name: str, found: dict[str, Path]) -> str:
    """The file of labels that belongs to one of images.

    Raises:
        UserError: It is not there.
    """
    plain = name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    for partner in (plain, f"{plain}.gz"):
        if partner in found:
            return partner
    raise UserError(f"{found[name]} has no labels: expected {plain} or {plain}.gz beside it")


def _array(file: Path, dimensions: int) -> NDArray[np.uint8]:
    """The values of one file.

    Raises:
        UserError: It is cut short, or no such file.
    """
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {file} ({error}): expected an intact file") from error
    head = 4 + 4 * dimensions
    sizes = np.frombuffer(content[4:head], ">u4") if len(content) >= head else np.empty(0, np.uint32)
    shape = tuple(map(int, sizes))
    if content[:4] != bytes([0, 0, _UNSIGNED_BYTES, dimensions]) or len(content) != head + math.prod(shape):
        raise UserError(f"{file} is no idx file of bytes in {dimensions} dimensions, or cut short: fetch it again")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)
