"""A folder of images as a collection: ``folder:PATH``, one sub-folder of images for each family.

Guarantees that every image file directly inside a sub-folder is read or named in an error, and that the families are
the sub-folders in alphabetical order. These are passed over and counted: hidden files and folders, files that are no
images by their suffix, deeper folders, and images outside any sub-folder. All images are held in memory.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from dphyper.bench.source import Source
from dphyper.bench.tasks import Collection
from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets._cut import cut
from dphyper.datasets._families import by_label, count_noun
from dphyper.datasets._files import is_hidden, visible_files
from dphyper.datasets._images import decode

# What the line on each kind of entry that is passed over says of it.
_WHERE = {"file": "of no image's suffix", "folder": "inside a family's folder", "image": "outside any family's folder"}


class Folder(Source):
    """A folder of images, one sub-folder for each family: ``folder:PATH``."""

    @classmethod
    def load(cls, spec: DataSpec) -> Collection:
        """Load the images; private by default the last two sub-folders, tuning the one before.

        Raises:
            UserError: The path is missing or no folder, holds no sub-folder of images, or an image is corrupt.
        """
        root = Path(spec.argument)
        if not spec.argument or not root.is_dir():
            raise UserError(
                f"data.source '{spec.source}': expected folder:PATH with a folder that exists, one sub-folder of "
                "images per task"
            )
        suffixes = Image.registered_extensions()
        entries, passed_over = visible_files(root, root.glob("*/*"))
        files = [file for file in entries if file.suffix.lower() in suffixes and not file.is_dir()]
        if not files:
            raise UserError(
                f"data.source '{spec.source}' holds no image: expected one sub-folder per task with image files "
                "(PNG, JPEG, …) directly inside"
            )
        deeper = sum(entry.is_dir() for entry in entries)
        outside = sum(file.suffix.lower() in suffixes and not is_hidden(file.name) for file in root.glob("*.*"))
        for number, what in (
            (len(entries) - len(files) - deeper, "file"),
            (deeper, "folder"),
            (outside, "image"),
        ):
            if number:
                passed_over.append(f"{count_noun(number, what)} {_WHERE[what]}")
        names = sorted({file.parent.name for file in files})
        return cut(
            name=root.name,
            images=np.stack([decode(file, str(file), spec) for file in files]),
            families=by_label(np.asarray([names.index(file.parent.name) for file in files]), names),
            spec=spec,
            passed_over=passed_over,
            licence=f"images of {root}, under their owner's terms",
        )
