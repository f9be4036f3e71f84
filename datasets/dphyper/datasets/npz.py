"""NumPy archives as a collection: ``npz:PATH``, or ``npz:PATH+PATH+…`` with held-out families of further archives.

Images are (N, H, W), (N, H, W, 1) or (N, H, W, 3) uint8. The layouts:

- labels: ``x``, ``y`` (N,) with integers or strings, and optionally ``names``, which integer labels index. Families
  are the classes. ``PATH#KEY`` reads the labels from another array than ``y``.
- MedMNIST's: ``{train,val,test}_images`` and ``…_labels``, taken together. Families are the classes.
- concepts, which may overlap: the images of concept i are
  ``x[concept_index[concept_offsets[i]:concept_offsets[i + 1]]]``, its name is ``concept_names[i]``. Images of no
  concept are public.

Public data come from the first archive alone. A family of a further archive is called ``STEM.NAME``, counts as far, and
is loaded only if it is named private or tuning. Names that are equal as text make one family, such as a class listed
twice, or classes of two archives of one stem. A ``+`` or ``#`` in the path of a file that exists is part of its name.

Guarantees that nothing in the archive is executed (no pickles). Families of nearly the same meaning (mail, email) are
for the user to put on one side of the split.
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dphyper.core.errors import UserError, unknown_name
from dphyper.core.names import family_name
from dphyper.core.specs import DataSpec
from dphyper.datasets._cut import Pool, PooledSource
from dphyper.datasets._families import by_label, merge_by_name
from dphyper.datasets._images import fit_arrays


class Npz(PooledSource):
    """NumPy archives: ``npz:PATH``, or ``npz:PATH+PATH+…``."""

    @classmethod
    def read(cls, spec: DataSpec) -> Pool:
        """Read the archives; private by default the last two families of the first, tuning the one before.

        Raises:
            UserError: A file is missing, is no archive of plain arrays, or has none of the layouts.
        """
        first, *further = _archives(spec.argument)
        images, families = read_archive(first, spec)
        pool, named, known, far = [images], [*families.items()], set(families), []
        wanted = {*map(family_name, (*spec.private, *spec.tuning))}
        for part in further:
            others, theirs = read_archive(part, spec)
            for name, rows in theirs.items():
                family = family_name(f"{_path(part).stem}.{name}")
                known.add(family)
                if family in wanted:
                    named.append((family, np.arange(len(rows)) + sum(map(len, pool))))
                    pool.append(others[rows])
                    far.append(family)
        for family in sorted(wanted):
            if family not in known:
                raise unknown_name("family", family, known)
        families = merge_by_name(named)
        return Pool(
            name="+".join(_path(part).stem for part in (first, *further)),
            images=np.concatenate(pool),
            families=families,
            far=far,
            elsewhere=sorted(known - families.keys()),
            licence=f"images of {spec.argument}, under their owners' terms",
        )


def _archives(argument: str) -> list[str]:
    """The archives of an argument: at each ``+`` a new one, but where one is the name of a file that exists."""
    words, found = argument.split("+"), list[str]()
    while words:
        joined = ("+".join(words[:length]) for length in range(len(words), 1, -1))
        part = next((it for it in joined if _path(it).is_file() and "+" not in it[len(str(_path(it))) :]), words[0])
        found.append(part)
        words = words[part.count("+") + 1 :]
    return found


def _path(part: str) -> Path:
    """The file of an archive, without the key of its labels."""
    return Path(part if "#" not in part or Path(part).is_file() else part.rpartition("#")[0])


def read_archive(part: str, spec: DataSpec) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.int64]]]:
    """Images (N, H, W, C) of an archive, and the rows of its families.

    Args:
        part: Path of the archive, with ``#KEY`` behind it where the labels are not in ``y``.
        spec: Size and channels of the images.

    Raises:
        UserError: The file is missing, is no archive of plain arrays, or has none of the layouts.
    """
    path = _path(part)
    key = "y" if part == str(path) else part.rpartition("#")[2] or "y"
    if not path.is_file():
        raise UserError(f"data.source '{spec.source}': expected npz:PATH with a file that exists, not '{path}'")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays: dict[str, NDArray[Any]] = dict(archive)
    except (ValueError, OSError, EOFError, TypeError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path} ({error}): expected an .npz archive of plain arrays") from error
    if splits := [name for name in ("train", "val", "test") if f"{name}_images" in arrays]:
        for kind, plain in (("images", "x"), ("labels", "y")):
            try:
                arrays[plain] = np.concatenate([arrays[f"{split}_{kind}"] for split in splits])
            except KeyError as error:
                raise UserError(f"{path} has the keys {', '.join(arrays)}: expected {error} too") from error
            except ValueError as error:
                raise UserError(f"{path}: its {kind} do not go together ({error}): expected one shape") from error
    images = arrays.get("x", np.empty(0))
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))):
        given = f"{images.dtype} {images.shape}" if "x" in arrays else f"only the keys {', '.join(arrays) or '(none)'}"
        raise UserError(
            f"{path} has {given}: expected 'x' as uint8 images of shape (N, H, W), (N, H, W, 1) or (N, H, W, 3)"
        )
    if not images.size:
        raise UserError(f"{path} has no image ('x' is of shape {images.shape}): expected at least one")
    return fit_arrays(images, spec), _families(path, arrays, len(images), key)


def _families(path: Path, arrays: Mapping[str, NDArray[Any]], count: int, key: str) -> dict[str, NDArray[np.int64]]:
    """Rows of each family of ``count`` images, from either layout.

    Raises:
        UserError: Neither layout is there, or its arrays disagree.
    """
    if {"concept_index", "concept_offsets", "concept_names"} <= set(arrays):
        index, offsets, names = (arrays[f"concept_{part}"] for part in ("index", "offsets", "names"))
        ordered = (
            len(offsets) == len(names) + 1 and offsets[0] == 0 and not (np.diff(offsets.astype(np.int64)) < 0).any()
        )
        if not ordered or offsets[-1] != len(index) or not _all_index(index, count):
            raise UserError(
                f"{path}: its concepts disagree: expected concept_offsets with one entry more than concept_names, "
                f"rising from 0 to the length of concept_index, and concept_index below {count}"
            )
        parts = np.split(index.astype(np.int64), offsets[1:-1].astype(np.int64))
        return merge_by_name(zip(names, parts, strict=True))
    if key not in arrays:
        raise UserError(
            f"{path} has the keys {', '.join(arrays)}: beside 'x' expected either '{key}' (and optionally 'names') or "
            "'concept_index', 'concept_offsets' and 'concept_names'"
        )
    labels = arrays[key].reshape(-1)
    if len(labels) != count:
        raise UserError(f"{path}: '{key}' has {len(labels)} labels for {count} images: expected one for each")
    if "names" not in arrays:
        found, labels = np.unique(labels, return_inverse=True)
        return by_label(labels, found)
    if not _all_index(labels, len(arrays["names"])):
        raise UserError(
            f"{path}: '{key}' is {labels.dtype} from {labels.min()} to {labels.max()}: expected whole numbers that "
            f"index the {len(arrays['names'])} 'names'"
        )
    return by_label(labels, arrays["names"])


def _all_index(values: NDArray[Any], length: int) -> bool:
    """Whether all values are integers from 0 to ``length`` - 1."""
    return np.issubdtype(values.dtype, np.integer) and bool(((values >= 0) & (values < length)).all())
