"""A folder of images as a collection: ``folder:PATH``, one sub-folder of images per task.

Guarantees that every image file directly inside a sub-folder is read or named in an error, and that the
families are the sub-folders in alphabetical order. Files that are no images by their suffix are passed over,
deeper folders too; the whole folder is held in memory.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from dphyper.bench.errors import UserError
from dphyper.bench.specs import DataSpec
from dphyper.bench.tasks import Collection
from dphyper.datasets._cut import by_label, cut
from dphyper.datasets._images import decode


def load(spec: DataSpec) -> Collection:
    """Load the images; private by default the last two sub-folders, tuning the one before.

    Raises:
        UserError: The path is missing or no folder, holds no sub-folder of images, or an image is corrupt.
    """
    root = Path(spec.argument)
    if not spec.argument or not root.is_dir():
        raise UserError(
            f"data.source '{spec.source}': expected folder:PATH with a folder that exists, one sub-folder of images "
            "per task"
        )
    suffixes = Image.registered_extensions()
    files = [file for file in sorted(root.glob("*/*")) if file.suffix.lower() in suffixes]
    if not files:
        raise UserError(
            f"data.source '{spec.source}' holds no image: expected one sub-folder per task with image files "
            "(PNG, JPEG, …) directly inside"
        )
    names = sorted({file.parent.name for file in files})
    return cut(
        name=root.name,
        images=np.stack([decode(file, str(file), spec) for file in files]),
        families=by_label(np.asarray([names.index(file.parent.name) for file in files]), names),
        spec=spec,
        licence=f"images of {root}, under their owner's terms",
    )
