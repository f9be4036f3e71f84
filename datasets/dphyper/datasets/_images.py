"""Brings images of any size and mode to the size and channels of a collection, as a viewer would show them.

Guarantees uint8 images of shape (image_size, image_size, channels), or an error that names what cannot be read. They
are turned as the EXIF orientation says; colours go to sRGB where a profile of RGB or CMYK is embedded; transparency is
laid on `data.background`; of animations and many pages the first one is taken. Then they are cropped or padded to a
square (`data.fit`), made grey or RGB, and resized with Pillow's antialiasing Lanczos filter.

Values of more than 8 bits, and floats, go linearly from black to white between `data.value_range`, or what the file
declares, or 0 and 65535 for 16 bits and 0 and 1 for floats. What was assumed is said. Nothing else sets this scale: a
maximum over the images would tell of private ones. Where no scale can be told, or it would leave every image almost
black, the images are refused.

Shapes: N images, H W C height, width, channels.
"""

import io
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets._families import count_noun

# Single channels of 16 and 32 bits and of floats, whose values Pillow hands out as they stand in the file.
_DEEP = ("I", "F")
_SIXTEEN_BITS = (0.0, 65535.0)
_DIM = 4095  # 12 bits: an image of 16 bits with nothing brighter is almost black, and more likely 12 bits in 16
# Formats whose values Pillow brings to all of 16 bits, whatever their depth.
_SCALED = ("PPM", "JPEG2000")
# Layers of one picture, of which Pillow opens the whole.
_LAYERED = ("PSD",)
_NAMED = 5  # images that an error names at most


def decode(files: Iterable[tuple[str, Path | bytes]], spec: DataSpec) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Read image files.

    Args:
        files: What an error calls each image, and the file or its content.
        spec: Size, channels and the rules that bring images to them.

    Returns:
        (N, H, W, C) images in the order of the files, and a line on each thing that was assumed.

    Raises:
        UserError: Images that cannot be read, or whose values have no known scale; all are counted, some are named.
    """
    account, images = _Account(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on large images and damaged metadata that are read all the same
        for label, source in files:
            account.label = label
            try:
                images.append(_decode(source, spec, account))
            except Exception as error:  # a plugin of Pillow may raise anything
                account.unreadable.append(f"{label} ({_reason(source, error)})")
    account.require_readable(len(images))
    shape = (len(images), spec.image_size, spec.image_size, spec.channels)
    return np.stack(images) if images else np.empty(shape, np.uint8), account.lines()


def fit_arrays(arrays: Iterable[NDArray[np.uint8]], spec: DataSpec) -> NDArray[np.uint8]:
    """Images as (N, H, W, C) from arrays of shape (h, w), (h, w, 1) or (h, w, 3)."""
    return np.stack([_fit(Image.fromarray(a.squeeze(-1) if a.shape[2:] == (1,) else a), spec) for a in arrays])


def is_image(file: Path) -> bool:
    """Whether a file is an image: by its suffix, or by its content if it has none.

    A suffix counts if Pillow can read such files. Those that it only recognises (``.h5``) or only writes (``.pdf``) do
    not.
    """
    if file.suffix:
        return file.suffix.lower() in _SUFFIXES
    try:
        with Image.open(file, formats=("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF")):
            return True
    except (OSError, ValueError, SyntaxError):
        return False


def _readable_suffixes() -> frozenset[str]:
    known = Image.registered_extensions()  # loads all of Pillow's plugins
    stubs = {
        name
        for name, (factory, _) in Image.OPEN.items()
        if isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)
    }
    # Pillow knows MPEG by name alone, and draws PostScript only where Ghostscript is installed.
    return frozenset(suffix for suffix, name in known.items() if name in Image.OPEN.keys() - stubs - {"MPEG", "EPS"})


_SUFFIXES = _readable_suffixes()


@dataclass(kw_only=True)
class _Account:
    """What was met and assumed among the images of a source.

    Attributes:
        label: The image at hand.
        unreadable: Images that cannot be read, each with the reason.
        unscaled: Images whose values have no known scale, each with its values.
        several: How many have more than one frame or page.
        assumed: How many of 16 bits a channel had to be taken to use all of them, and are not black.
        dim: Those of them with nothing brighter than `_DIM`.
        floats: How many of floats were taken to go from 0 to 1.
        clipped: How many have values beyond their range.
    """

    label: str = ""
    unreadable: list[str] = field(default_factory=list)
    unscaled: list[str] = field(default_factory=list)
    several: int = 0
    assumed: int = 0
    dim: list[str] = field(default_factory=list)
    floats: int = 0
    clipped: int = 0

    def sixteen_bits(self, brightest: float) -> None:
        """Count an image of 16 bits a channel that declares no range."""
        self.assumed += brightest > 0
        if 0 < brightest <= _DIM:
            self.dim.append(self.label)

    def require_readable(self, read: int) -> None:
        """Refuse what cannot be read as a viewer shows it.

        Raises:
            UserError: There is such an image.
        """
        if self.unreadable:
            count = len(self.unreadable)
            which = "the image" if count == 1 else f"{count} of {read + count} images:"
            raise UserError(
                f"cannot read {which} {_some(self.unreadable)}: expected intact image files, mend or remove them"
            )
        if self.unscaled:
            raise UserError(
                f"which values are black and white is not known of {count_noun(len(self.unscaled), 'image')}: "
                f"{_some(self.unscaled)}; say data.value_range: [BLACK, WHITE]"
            )
        if self.dim and len(self.dim) == self.assumed:
            raise UserError(
                f"{count_noun(len(self.dim), 'image')} of 16 bits would come out almost black: {_some(self.dim)}, with "
                f"no value above {_DIM} of 65535; say data.value_range: [BLACK, WHITE], such as [0, {_DIM}] for 12 bits"
            )

    def lines(self) -> tuple[str, ...]:
        """A line on each thing that was assumed."""
        found = []
        if self.several:
            found.append(f"{count_noun(self.several, 'file')} of several frames or pages: the first one is taken")
        if self.assumed:
            dim = f"; {len(self.dim)} come out almost black ({_some(self.dim)})" if self.dim else ""
            found.append(f"{count_noun(self.assumed, 'image')} of 16 bits: 0 is taken as black, 65535 as white{dim}")
        if self.floats:
            found.append(f"{count_noun(self.floats, 'image')} of floats: 0 is taken as black, 1 as white")
        if self.clipped:
            found.append(f"{count_noun(self.clipped, 'image')} with values beyond the range, cut off there")
        return tuple(found)


def _some(entries: list[str]) -> str:
    more = f" and {len(entries) - _NAMED} more" if len(entries) > _NAMED else ""
    return ", ".join(entries[:_NAMED]) + more


def _reason(source: Path | bytes, error: Exception) -> str:
    """Why an image cannot be read, in one line."""
    try:
        size = len(source) if isinstance(source, bytes) else os.stat(source).st_size
    except OSError as failed:
        return failed.strerror or "no file"
    if not size:
        return "empty"
    if isinstance(error, UnidentifiedImageError):
        return "no image that Pillow knows"
    return " ".join(str(error).split()) or type(error).__name__


def _decode(source: Path | bytes, spec: DataSpec, account: _Account) -> NDArray[np.uint8]:
    """One image, (H, W, C)."""
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        if isinstance(image, ImageFile.StubImageFile):
            raise ValueError(f"Pillow has no reader for {image.format}")
        several = getattr(image, "n_frames", 1) > 1 and image.format not in _LAYERED
        halved = any(";16" in str(tile.args) for tile in image.tile) and not image.mode.startswith(_DEEP)
        image.load()
        if image.mode.startswith(_DEEP):
            scaled = _scaled(image, spec, account)
        else:
            scaled = image
            if halved:  # Pillow keeps the upper 8 of a colour's 16 bits
                brightest = np.asarray(image.convert("RGB")).max(initial=0)
                if spec.value_range not in ((), _SIXTEEN_BITS):
                    account.unscaled.append(f"{account.label} (16 bits a colour, of which 8 can be read)")
                account.sixteen_bits(257 * float(brightest))
        account.several += several
        if "exif" in image.info:  # the copy of the pixels must be turned too
            scaled.info["exif"] = image.info["exif"]
        return _fit(_in_srgb(ImageOps.exif_transpose(scaled), spec), spec)


def _scaled(image: Image.Image, spec: DataSpec, account: _Account) -> Image.Image:
    """A single channel of 16 or 32 bits or of floats, as 8 bits.

    Returns:
        A grey image; a black one where the scale is not known, which `_Account.require_readable` refuses.
    """
    values = np.asarray(image).astype(np.float64)
    tags = getattr(image, "tag_v2", {})
    declared = _declared(image, spec)
    low, high = declared or _SIXTEEN_BITS
    if not declared and image.mode == "F" and values.size and values.min() >= 0 and values.max() <= 1:
        low, high = 0.0, 1.0
        account.floats += 1
    elif not declared and _is_unsigned_16(image):
        account.sixteen_bits(values.max(initial=0))
    elif not declared or not np.isfinite(values).all():
        kind = "floats" if image.mode == "F" else "signed or 32-bit whole numbers"
        account.unscaled.append(f"{account.label} ({kind} from {values.min():g} to {values.max():g})")
        return Image.new("L", image.size)
    account.clipped += bool(values.size and (values.min() < low or values.max() > high))
    share = (values.clip(low, high) - low) / (high - low)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        share = 1 - share
    return Image.fromarray(np.round(255 * share).astype(np.uint8))


# Tags of TIFF. Its MinSampleValue and MaxSampleValue (280, 281) are statistics, by which nothing may be shown.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _S_MIN, _S_MAX = 258, 262, 339, 340, 341
_WHITE_IS_ZERO, _UNSIGNED = 0, 1


def _declared(image: Image.Image, spec: DataSpec) -> tuple[float, float] | None:
    """The values of black and white by the user's word, or the file's; None where neither says them."""
    if spec.value_range:
        low, high = spec.value_range
        return low, high
    if image.format in _SCALED and image.mode != "F":
        return _SIXTEEN_BITS
    tags = getattr(image, "tag_v2", {})
    low, high = (np.ravel(tags.get(tag, np.nan))[0] for tag in (_S_MIN, _S_MAX))
    if low < high:
        return float(low), float(high)
    bits = np.ravel(tags.get(_BITS, 16))[0]
    return (0.0, float(2**bits - 1)) if bits < 16 else None


def _is_unsigned_16(image: Image.Image) -> bool:
    """Whether the values are whole numbers from 0 to 65535, by the file's word."""
    tags = getattr(image, "tag_v2", {})
    if image.format == "TIFF":
        bits, kind = (np.ravel(tags.get(tag, 1))[0] for tag in (_BITS, _SAMPLE_FORMAT))
        return bool(bits == 16 and kind == _UNSIGNED)
    return image.format == "PNG" or image.mode.startswith("I;16")


def _in_srgb(image: Image.Image, spec: DataSpec) -> Image.Image:
    """The image without transparency, its colours in sRGB where it says what they are."""
    profile = image.info.get("icc_profile")
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, spec.background)
        image = Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    if image.mode in ("LAB", "HSV"):
        return image.convert("RGB")
    if not profile or image.mode not in ("RGB", "CMYK"):
        return image
    try:
        own, srgb = (ImageCms.ImageCmsProfile(it) for it in (io.BytesIO(profile), ImageCms.createProfile("sRGB")))
        if _primaries(own) == _primaries(srgb) and "sRGB" in ImageCms.getProfileDescription(own):
            return image  # to the last bit
        return ImageCms.profileToProfile(image, own, srgb, outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError):
        return image  # a damaged profile, or one of other colours than the image's, which viewers leave out too


def _primaries(profile: ImageCms.ImageCmsProfile) -> list[tuple[float, ...]]:
    """XYZ of a profile's red, green and blue, to two places; empty where it has none."""
    known = profile.profile
    found = (known.red_colorant, known.green_colorant, known.blue_colorant)
    return [tuple(round(value, 2) for value in each[0]) for each in found if each]


def _fit(image: Image.Image, spec: DataSpec) -> NDArray[np.uint8]:
    """One image as (H, W, C) of the size and channels in ``spec``."""
    image = image.convert("L" if spec.channels == 1 else "RGB")
    size = (spec.image_size, spec.image_size)
    if image.size != size:
        if spec.fit == "pad":
            image = ImageOps.pad(image, size, Image.Resampling.LANCZOS, color=spec.background)
        else:
            image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(*size, spec.channels)
