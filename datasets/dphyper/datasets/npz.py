"""One NumPy archive as a collection: ``npz:PATH``.

Accepted layouts; in both ``x`` is (N, H, W), (N, H, W, 1) or (N, H, W, 3) uint8:

- labels: ``y`` (N,) with integers or strings, and optionally ``names``, which integer labels index. Families
  are the classes.
- concepts, which may overlap: the images of concept i are
  ``x[concept_index[concept_offsets[i]:concept_offsets[i + 1]]]``, its name is ``concept_names[i]``. Images of no
  concept are public.

Guarantees that nothing in the archive is executed (no pickles). Families of near-equal meaning (mail, email)
are the user's to name on one side of the split.
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dphyper.bench.errors import UserError
from dphyper.bench.specs import DataSpec
from dphyper.bench.tasks import Collection
from dphyper.datasets._cut import by_label, cut
from dphyper.datasets._images import fit_arrays


def load(spec: DataSpec) -> Collection:
    """Load the archive; private by default the last two families, tuning the one before.

    Raises:
        UserError: The file is missing, is no archive of plain arrays, or has neither layout.
    """
    path = Path(spec.argument)
    if not path.is_file():
        raise UserError(f"data.source '{spec.source}': expected npz:PATH with a file that exists")
    images, families = read(path, spec)
    return cut(
        name=path.stem,
        images=images,
        families=families,
        spec=spec,
        licence=f"images of {path}, under their owner's terms",
    )


def read(path: Path, spec: DataSpec) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.int64]]]:
    """Images (N, H, W, C) of an archive, and the rows of its families.

    Raises:
        UserError: The file is no archive of plain arrays, or has neither layout.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays: dict[str, NDArray[Any]] = dict(archive)
    except (ValueError, OSError, EOFError, TypeError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path} ({error}): expected an .npz archive of plain arrays") from error
    images = arrays.get("x", np.empty(0))
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))):
        given = f"{images.dtype} {images.shape}" if "x" in arrays else f"only the keys {', '.join(arrays) or '(none)'}"
        raise UserError(
            f"{path} has {given}: expected 'x' as uint8 images of shape (N, H, W), (N, H, W, 1) or (N, H, W, 3)"
        )
    return fit_arrays(images, spec), _families(path, arrays, len(images))


def _families(path: Path, arrays: Mapping[str, NDArray[Any]], count: int) -> dict[str, NDArray[np.int64]]:
    """Rows of each family of ``count`` images, from either layout.

    Raises:
        UserError: Neither layout is there, or its arrays disagree.
    """
    if {"concept_index", "concept_offsets", "concept_names"} <= set(arrays):
        index, offsets, names = (arrays[f"concept_{part}"] for part in ("index", "offsets", "names"))
        if len(offsets) != len(names) + 1 or offsets[-1] != len(index) or not _all_index(index, count):
            raise UserError(
                f"{path}: its concepts disagree: expected concept_offsets with one entry more than concept_names, "
                f"ending at the length of concept_index, and concept_index below {count}"
            )
        parts = np.split(index.astype(np.int64), offsets[1:-1].astype(np.int64))
        return {str(name): np.unique(part) for name, part in zip(names, parts, strict=True)}
    if "y" not in arrays:
        raise UserError(
            f"{path} has the keys {', '.join(arrays)}: beside 'x' expected either 'y' (and optionally 'names') or "
            "'concept_index', 'concept_offsets' and 'concept_names'"
        )
    labels = arrays["y"].reshape(-1)
    if len(labels) != count:
        raise UserError(f"{path}: 'y' has {len(labels)} labels for {count} images: expected one for each")
    if "names" not in arrays:
        found, labels = np.unique(labels, return_inverse=True)
        return by_label(labels, [str(name) for name in found])
    if not _all_index(labels, len(arrays["names"])):
        raise UserError(
            f"{path}: 'y' is {labels.dtype} from {labels.min()} to {labels.max()}: expected whole numbers that index "
            f"the {len(arrays['names'])} 'names'"
        )
    return by_label(labels, [str(name) for name in arrays["names"]])


def _all_index(values: NDArray[Any], length: int) -> bool:
    """Whether all values are integers from 0 to ``length`` - 1."""
    return np.issubdtype(values.dtype, np.integer) and bool(((values >= 0) & (values < length)).all())
