"""Brings images of any size and mode to the size and channels of a collection.

Guarantees uint8 images of shape (image_size, image_size, channels). An image is cut to its largest centred square and
resized with an antialiasing Lanczos filter; transparency is laid on white, and 16-bit grey is scaled to 8 bits. Colour
profiles are ignored.
"""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec


def decode(source: Path | bytes, label: str, spec: DataSpec) -> NDArray[np.uint8]:
    """Read one image file, (H, W, C).

    Args:
        source: The file or its content.
        label: What an error message calls the image.
        spec: Size and channels of the result.

    Raises:
        UserError: The content is no image or is cut short; the message names it.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return fit(ImageOps.exif_transpose(image), spec)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            f"cannot read the image {label} ({error}): expected an intact image file, replace or remove it"
        ) from error


def fit(image: Image.Image, spec: DataSpec) -> NDArray[np.uint8]:
    """One image as (H, W, C) of the size and channels in ``spec``."""
    if image.mode.startswith("I"):  # 16-bit files, where a plain conversion would clip all above 255 to white
        image = Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("L" if spec.channels == 1 else "RGB")
    size = (spec.image_size, spec.image_size)
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(*size, spec.channels)


def fit_arrays(arrays: Iterable[NDArray[np.uint8]], spec: DataSpec) -> NDArray[np.uint8]:
    """Images as (N, H, W, C) from arrays of shape (h, w), (h, w, 1) or (h, w, 3)."""
    return np.stack([fit(Image.fromarray(a.squeeze(-1) if a.shape[2:] == (1,) else a), spec) for a in arrays])
