"""A contact sheet: some images of every family, as the model will see them.

It shows private images, for the user to look at before anything is trained; nothing but ``dphyper ls tasks`` makes one.
Clusters are left out. The images are the first of each family, and do not depend on a seed.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dphyper.bench.tasks import Collection
from dphyper.core.errors import UserError
from dphyper.core.files import whole_file

PER_FAMILY = 12
_SIDE = 64  # pixels of each image on the sheet, at least
_LABEL = 20


def contact_sheet(collection: Collection, path: Path) -> None:
    """Write a sheet with a row for every family, under its split, name and size.

    Args:
        collection: Its records are (N, H, W, C) uint8 images.
        path: A file with a suffix that Pillow writes, such as ``sheet.png``.

    Raises:
        UserError: The records are no images, or the file cannot be written.
    """
    if collection.records.dtype != np.uint8 or collection.records.ndim != 4:
        raise UserError(f"the records of '{collection.name}' are no images: no sheet can be made of them")
    tasks = [task for task in collection.tasks if task.kind == "family"]
    zoom = max(1, _SIDE // collection.records.shape[1])
    side = collection.records.shape[1] * zoom
    sheet = Image.new("RGB", (PER_FAMILY * (side + 2), len(tasks) * (side + _LABEL)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for row, task in enumerate(tasks):
        top = row * (side + _LABEL)
        draw.text((2, top + 2), f"{task.split}: {task.id} ({len(task)})", fill="black", font=font)
        for column, record in enumerate(collection.records[task.indices[:PER_FAMILY]]):
            image = Image.fromarray(record.squeeze(-1) if record.shape[-1] == 1 else record)
            sheet.paste(image.resize((side, side), Image.Resampling.NEAREST), (column * (side + 2), top + _LABEL))
    try:
        with whole_file(path) as temporary:
            sheet.save(temporary)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write the sheet '{path}' ({error}): expected a path such as sheet.png") from error
