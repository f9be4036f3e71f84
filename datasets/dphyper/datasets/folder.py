"""A folder of images as a collection: ``folder:PATH``, one sub-folder of images for each family.

A folder with images and no sub-folder is one family of its own name. Guarantees that every image directly inside is
read or named in an error, and that the families are the sub-folders in alphabetical order. These are passed over and
counted: hidden files and folders, files that are no images, deeper folders, and images beside the sub-folders. All
images are held in memory.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dphyper.core.errors import UserError
from dphyper.core.names import family_name
from dphyper.core.specs import DataSpec
from dphyper.datasets._cut import Pool, PooledSource
from dphyper.datasets._families import by_label, count_noun
from dphyper.datasets._files import is_hidden, visible_files
from dphyper.datasets._images import decode, is_image


class Folder(PooledSource):
    """A folder of images, one sub-folder for each family: ``folder:PATH``."""

    @classmethod
    def read(cls, spec: DataSpec) -> Pool:
        """Read the images; private by default the last two sub-folders, tuning the one before.

        Raises:
            UserError: The path is no folder, cannot be listed, holds no image, or an image is corrupt.
        """
        root = Path(spec.argument)
        if not spec.argument or not root.is_dir():
            raise UserError(
                f"data.source '{spec.source}': expected folder:PATH with a folder that exists, one sub-folder of "
                "images per task"
            )
        try:
            inside = sorted(root.iterdir())
            folders = [entry for entry in inside if entry.is_dir() and not is_hidden(entry.name)]
            beside = [entry for entry in inside if entry.is_file() and not is_hidden(entry.name) and is_image(entry)]
            # Hidden folders stand in the list with their content, so that they are counted.
            below = (entry for folder in inside if folder.is_dir() for entry in folder.iterdir())
            entries, passed_over = visible_files(root, below if folders or not beside else inside)
        except OSError as error:
            raise UserError(f"cannot list {error.filename} ({error.strerror}): expected a folder to read") from error
        files = [entry for entry in entries if entry.is_file() and is_image(entry)]
        if not files:
            deeper = sum(is_image(file) for file in root.rglob("*") if file.is_file())
            found = f", but {count_noun(deeper, 'image')} deeper inside" if deeper else ""
            raise UserError(
                f"data.source '{spec.source}' holds no image{found}: expected one sub-folder per task with image files "
                "(PNG, JPEG, …) directly inside"
            )
        passed_over += _other_entries(entries, files)
        if folders:
            bare = [family_name(folder.name) for folder in folders if not any(f.parent == folder for f in files)]
            if bare:
                passed_over.append(f"{count_noun(len(bare), 'folder')} without images ({', '.join(bare)})")
            if beside:
                passed_over.append(f"{count_noun(len(beside), 'image')} outside any family's folder")
        images, remarks = decode(((str(file), file) for file in files), spec)
        name = root.name or root.resolve().name
        labels = [name if file.parent == root else file.parent.name for file in files]
        names, codes = np.unique(labels, return_inverse=True)
        return Pool(
            name=family_name(name),
            images=images,
            families=by_label(codes, names),
            passed_over=passed_over,
            remarks=remarks,
            licence=f"images of {root}, under their owner's terms",
        )


def _other_entries(entries: Iterable[Path], files: Iterable[Path]) -> list[str]:
    """A line on each kind of entry that is none of the ``files``, which are read."""
    rest = sorted(set(entries) - set(files))
    folders = [entry for entry in rest if entry.is_dir()]
    others = Counter(entry.suffix.lower() or "no suffix" for entry in rest if entry.is_file())
    odd = len(rest) - len(folders) - others.total()
    found = []
    if others:
        what = "file that is no image" if others.total() == 1 else "files that are no images"
        kinds = ", ".join(suffix for suffix, _ in others.most_common())
        found.append(f"{others.total()} {what} ({kinds})")
    if folders:
        inside = sum(is_image(file) for folder in folders for file in folder.rglob("*") if file.is_file())
        images = f", with {count_noun(inside, 'image')}" if inside else ""
        found.append(f"{count_noun(len(folders), 'folder')} inside a family's folder{images}")
    if odd:
        found.append("1 entry that is no file" if odd == 1 else f"{odd} entries that are no files")
    return found
