"""Odd image files and folders, what a viewer shows of them, and what a source makes of them.

The contract suite runs sources over these cases, and ``python -m dphyper.datasets.odd_files > docs/odd_files.md``
writes the table of them. Every file is made with Pillow, or byte by byte, from one picture, so that what a viewer shows
is known without decoding it. A row of the table comes from a load and a comparison, not from what is expected of it.

The picture is 16 × 16 with flat blocks in 16 colours and no symmetry, so that palettes hold it and every turn shows.
"""

import io
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets._images import decode
from dphyper.datasets.folder import Folder

SIDE = 16
Pixels = NDArray[np.uint8]


def _picture() -> Pixels:
    levels = np.arange(SIDE, dtype=np.uint8).reshape(4, 4)
    colours = np.stack([levels * 17, (levels * 5 % 16) * 17, (255 - levels * 11)], -1).astype(np.uint8)
    return colours.repeat(4, 0).repeat(4, 1)


COLOUR = _picture()
GREY = COLOUR[..., 0]  # from 0 to 255 in steps of 17


@dataclass(frozen=True, kw_only=True)
class Odd:
    """One odd file.

    Attributes:
        name: Its name.
        what: What it is, in words.
        content: Its bytes.
        shown: What a viewer shows: (H, W, 3) or (H, W); None for what is refused.
        why: Why it is read so.
        says: Words in the remark, or in the refusal.
        far: Largest difference from what is shown, in grey levels: 0 unless the format loses some.
        spec: Keys of `DataSpec` that it is read with.
    """

    name: str
    what: str
    content: bytes
    shown: Pixels | None
    why: str
    says: str = ""
    far: int = 0
    spec: tuple[tuple[str, Any], ...] = ()


def _saved(image: Image.Image | NDArray[Any], kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def _png(depth: int, colour: int, rows: bytes, *chunks: bytes, width: int = SIDE, height: int = SIDE) -> bytes:
    """A PNG from filtered rows, for what Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _tiff(values: bytes, bits: int, **tags: int) -> bytes:
    """A little-endian TIFF of one strip of grey values, for what Pillow does not write; tags as ``t339=2``."""
    entries = {256: SIDE, 257: SIDE, 258: bits, 259: 1, 262: 1, 273: 0, 277: 1, 278: SIDE, 279: len(values)}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    entries[273] = 8 + 2 + 12 * len(entries) + 4
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4) + values


def _packed_12(values: NDArray[np.integer]) -> bytes:
    """Values of 12 bits, two in three bytes."""
    pairs = values.reshape(-1, 2).astype(np.uint32)
    return b"".join(int(a << 12 | b).to_bytes(3, "big") for a, b in pairs)


def _swapped_profile() -> bytes:
    """A profile like sRGB's with red and green in each other's place."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"none").replace(b"gXYZ", b"rXYZ").replace(b"none", b"gXYZ")


def _with_alpha(alpha: int) -> tuple[Image.Image, Pixels, Pixels]:
    """The picture with the left half at ``alpha``, and what shows on white and on black."""
    share = np.full((SIDE, SIDE, 1), 255, np.uint8)
    share[:, : SIDE // 2] = alpha
    image = Image.fromarray(np.concatenate([COLOUR, share], -1))
    grounds = (np.round(COLOUR * (share / 255) + ground * (1 - share / 255)) for ground in (255, 0))
    white, black = (ground.astype(np.uint8) for ground in grounds)
    return image, white, black


def _turned(orientation: int) -> Pixels:
    """Pixels that, with this EXIF orientation, show the picture."""
    undo = {2: (0, True), 3: (2, False), 4: (2, True), 5: (1, True), 6: (1, False), 7: (3, True), 8: (3, False)}
    quarter_turns, mirrored = undo[orientation]
    pixels = COLOUR[:, ::-1] if mirrored else COLOUR
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns))


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


_LOSSLESS = "nothing is lost in this format"
_LOSSY = "the format loses a little"
_ALPHA = "`data.background` lies under transparent pixels; white unless you say otherwise"
_TURN = "phones store a photograph as the sensor lay, and say how to turn it"
_DEPTH = "values follow the declared range"
_FIRST = "one file is one record; counted, since the rest is lost"
_REFUSED_RANGE = "no rule tells black from white, and a guess from the data would tell of private images"
_BROKEN = "part of a picture is another picture"
_CONTENT = "the content decides, not the suffix"


def odd_files() -> Iterator[Odd]:
    """All cases of one file."""
    yield from _formats()
    yield from _modes()
    yield from _orientations()
    yield from _deep()
    yield from _several()
    yield from _damaged()
    yield from _shapes()


def _formats() -> Iterator[Odd]:
    image = Image.fromarray(COLOUR)
    lossless: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("png", "PNG", {}),
        ("bmp", "BMP", {}),
        ("tif", "TIFF", {}),
        ("tga", "TGA", {}),
        ("ppm", "PPM", {}),
        ("webp", "WEBP", {"lossless": True}),
        ("jp2", "JPEG2000", {}),
        ("pcx", "PCX", {}),
        ("sgi", "SGI", {}),
        ("dds", "DDS", {}),
        ("im", "IM", {}),
        ("ico", "ICO", {"sizes": [(SIDE, SIDE)]}),
        ("gif", "GIF", {}),
    )
    for suffix, kind, options in lossless:
        yield Odd(name=f"a.{suffix}", what=kind, content=_saved(image, kind, **options), shown=COLOUR, why=_LOSSLESS)
    zipped = _saved(image, "TIFF", compression="tiff_adobe_deflate")
    yield Odd(name="a.tiff", what="compressed TIFF", content=zipped, shown=COLOUR, why=_LOSSLESS)
    lossy: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("jpg", "JPEG", {"quality": 95, "subsampling": 0}),
        ("jpeg", "progressive JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("jfif", "JPEG as .jfif", {"quality": 95, "subsampling": 0}),
        ("avif", "AVIF", {"quality": 100, "subsampling": "4:4:4"}),
    )
    for suffix, kind, options in lossy:
        content = _saved(image, "AVIF" if kind == "AVIF" else "JPEG", **options)
        yield Odd(name=f"a.{suffix}", what=kind, content=content, shown=COLOUR, why=_LOSSY, far=16)
    yield Odd(name="B.PNG", what="suffix in capitals", content=_saved(image, "PNG"), shown=COLOUR, why=_CONTENT)
    jpeg = _saved(image, "JPEG", quality=95, subsampling=0)
    yield Odd(name="c.png", what="JPEG called .png", content=jpeg, shown=COLOUR, why=_CONTENT, far=16)
    yield Odd(name="no_suffix", what="PNG without a suffix", content=_saved(image, "PNG"), shown=COLOUR, why=_CONTENT)


def _modes() -> Iterator[Odd]:
    image, grey = Image.fromarray(COLOUR), Image.fromarray(GREY)
    palette = image.quantize(SIDE)
    bits = np.where(GREY > 127, 255, 0).astype(np.uint8)
    why = "each mode has one meaning"
    yield Odd(name="grey.png", what="grey", content=_saved(grey, "PNG"), shown=GREY, why=why)
    yield Odd(
        name="bits.png", what="1 bit", content=_saved(Image.fromarray(bits).convert("1"), "PNG"), shown=bits, why=why
    )
    yield Odd(
        name="inverted.tif",
        what="TIFF where 0 is white",
        content=_tiff((255 - GREY).tobytes(), 8, t262=0),  # Pillow would invert it while it writes
        shown=GREY,
        why="the file says which end is white",
    )
    yield Odd(name="palette.png", what="palette", content=_saved(palette, "PNG"), shown=COLOUR, why=why)
    cmyk = image.convert("CMYK")
    yield Odd(name="cmyk.tif", what="CMYK TIFF", content=_saved(cmyk, "TIFF"), shown=COLOUR, why=why)
    yield Odd(
        name="cmyk.jpg", what="CMYK JPEG", content=_saved(cmyk, "JPEG", quality=95), shown=COLOUR, why=_LOSSY, far=24
    )
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    yield Odd(
        name="lab.tif",
        what="LAB TIFF",
        content=_saved(ImageCms.applyTransform(image, lab) or image, "TIFF"),
        shown=COLOUR,
        why="colours go to sRGB; 8 bits of LAB are coarse",
        far=24,
    )
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield Odd(
        name="srgb.png",
        what="sRGB profile",
        content=_saved(image, "PNG", icc_profile=srgb),
        shown=COLOUR,
        why="sRGB is what a record holds",
    )
    swapped = COLOUR[..., [1, 0, 2]]
    yield Odd(
        name="profile.png",
        what="another colour profile",
        shown=COLOUR,
        far=3,
        why="colours go to sRGB",
        content=_saved(swapped, "PNG", icc_profile=_swapped_profile()),
    )
    yield Odd(
        name="bad_profile.png",
        what="damaged profile",
        content=_saved(image, "PNG", icc_profile=b"none"),
        shown=COLOUR,
        why="as viewers do, it is left out",
    )
    for alpha, words in ((0, "transparent"), (128, "half transparent")):
        clear, white, black = _with_alpha(alpha)
        content = _saved(clear, "PNG")
        yield Odd(name=f"rgba{alpha}.png", what=f"{words} left half", content=content, shown=white, why=_ALPHA, far=1)
        yield Odd(
            name=f"rgba{alpha}_black.png",
            what=f"{words} left half, `background: black`",
            content=content,
            shown=black,
            why=_ALPHA,
            far=1,
            spec=(("background", "black"),),
        )
    clear, white, _ = _with_alpha(0)
    yield Odd(
        name="rgba.webp", what="transparent WebP", content=_saved(clear, "WEBP", lossless=True), shown=white, why=_ALPHA
    )
    shades = np.dstack([GREY, np.asarray(clear)[..., 3]])
    on_white = np.where(shades[..., 1] > 0, GREY, 255).astype(np.uint8)
    yield Odd(name="la.png", what="grey with transparency", content=_saved(shades, "PNG"), shown=on_white, why=_ALPHA)
    index = int(np.asarray(palette)[0, 0])
    hole = np.where((np.asarray(palette) == index)[..., None], 255, COLOUR).astype(np.uint8)
    for kind in ("PNG", "GIF"):
        yield Odd(
            name=f"hole.{kind.lower()}",
            what=f"palette with a transparent colour, {kind}",
            shown=hole,
            why=_ALPHA,
            content=_saved(palette, kind, transparency=index),
        )
    some = bytes(0 if entry == index else 255 for entry in range(SIDE))
    yield Odd(
        name="holes.png",
        what="palette with a transparency of each colour",
        shown=hole,
        why=_ALPHA,
        content=_saved(palette, "PNG", transparency=some),
    )
    key = tuple(map(int, COLOUR[0, 0]))
    yield Odd(
        name="key.png",
        what="RGB with one transparent colour",
        shown=hole,
        why=_ALPHA,
        content=_saved(image, "PNG", transparency=key),
    )


def _orientations() -> Iterator[Odd]:
    for turn in range(2, 9):
        content = _saved(_turned(turn), "PNG", exif=_exif(turn))
        yield Odd(name=f"turn{turn}.png", what=f"EXIF orientation {turn}", content=content, shown=COLOUR, why=_TURN)
    content = _saved(_turned(6), "JPEG", exif=_exif(6), quality=95, subsampling=0)
    yield Odd(name="turn6.jpg", what="EXIF orientation 6, JPEG", content=content, shown=COLOUR, why=_TURN, far=16)
    content = _saved(_turned(8), "TIFF", tiffinfo={274: 8})
    yield Odd(name="turn8.tif", what="orientation 8, TIFF", content=content, shown=COLOUR, why=_TURN)
    deep = _turned(6)[..., 0].astype(np.uint16) * 257
    yield Odd(
        name="turn6_deep.png",
        what="EXIF orientation 6, 16 bits",
        content=_saved(deep, "PNG", exif=_exif(6)),
        shown=GREY,
        why=_TURN,
        says="1 image of 16 bits",
    )
    content = _saved(Image.fromarray(COLOUR), "JPEG", exif=b"Exif\0\0junk", quality=95, subsampling=0)
    yield Odd(
        name="bad_exif.jpg",
        what="damaged EXIF",
        content=content,
        shown=COLOUR,
        far=16,
        why="the picture is whole, so it is shown unturned",
    )


def _deep() -> Iterator[Odd]:
    deep = GREY.astype(np.uint16)
    full, twelve = deep * 257, deep * 16
    says = "1 image of 16 bits: 0 is taken as black"
    ranged = (("value_range", (0, 4080)),)
    yield Odd(name="16.png", what="16 bits, PNG", content=_saved(full, "PNG"), shown=GREY, why=_DEPTH, says=says)
    yield Odd(name="16.tif", what="16 bits, TIFF", content=_saved(full, "TIFF"), shown=GREY, why=_DEPTH, says=says)
    yield Odd(
        name="16_big.tif",
        what="16 bits, big-endian TIFF",
        shown=GREY,
        why=_DEPTH,
        says=says,
        content=_saved(Image.frombytes("I;16B", (SIDE, SIDE), full.astype(">u2").tobytes()), "TIFF"),
    )
    yield Odd(
        name="16_inverted.tif",
        what="16 bits, TIFF where 0 is white",
        shown=GREY,
        says=says,
        content=_saved(65535 - full, "TIFF", tiffinfo={262: 0}),
        why="the file says which end is white",
    )
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in COLOUR.astype(np.uint16) * 257)
    yield Odd(
        name="48.png",
        what="16 bits a colour",
        content=_png(16, 2, rows),
        shown=COLOUR,
        says=says,
        why="Pillow reads the upper 8 of them",
    )
    yield Odd(
        name="48_ranged.png",
        what="16 bits a colour, `value_range` given",
        content=_png(16, 2, rows),
        shown=None,
        why="8 bits of 16 are no measure to scale by",
        says="16 bits a colour",
        spec=ranged,
    )
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in COLOUR.astype(np.uint16) * 16)
    yield Odd(
        name="36.png",
        what="12 bits a colour in 16",
        content=_png(16, 2, rows),
        shown=None,
        why="it would be almost black",
        says="almost black",
    )
    yield Odd(
        name="12_in_16.png",
        what="12 bits in 16",
        content=_saved(twelve, "PNG"),
        shown=None,
        says="almost black",
        why="it would be almost black",
    )
    yield Odd(
        name="12_ranged.png",
        what="12 bits in 16, `value_range: [0, 4080]`",
        content=_saved(twelve, "PNG"),
        shown=GREY,
        why=_DEPTH,
        spec=ranged,
    )
    yield Odd(
        name="12_clipped.png",
        what="16 bits, `value_range: [0, 4080]`",
        content=_saved(full, "PNG"),
        shown=np.where(GREY > 0, 255, 0).astype(np.uint8),
        why="counted, since the rest is lost",
        says="1 image with values beyond the range",
        spec=ranged,
    )
    yield Odd(
        name="12.tif",
        what="12 bits, TIFF",
        content=_tiff(_packed_12(GREY.astype(int) * 4095 // 255), 12),
        shown=GREY,
        why=_DEPTH,
        far=1,
    )
    pgm = f"P5 {SIDE} {SIDE} 4080\n".encode() + twelve.astype(">u2").tobytes()
    yield Odd(name="12.pgm", what="PGM up to 4080", content=pgm, shown=GREY, why=_DEPTH)
    yield Odd(
        name="black.png",
        what="16 bits, all black",
        content=_saved(full * 0, "PNG"),
        shown=GREY * 0,
        why="black on every scale",
    )
    floats = (GREY / 255).astype(np.float32)
    yield Odd(
        name="float.tif",
        what="floats from 0 to 1",
        content=_saved(floats, "TIFF"),
        shown=GREY,
        why="the usual range of floats",
        says="1 image of floats: 0 is taken as black",
    )
    for name, factor in (("declared", 255), ("declared_small", 0.5)):
        tags = {340: 0.0, 341: float(factor)}
        yield Odd(
            name=f"float_{name}.tif",
            what=f"floats that declare 0 to {factor:g}",
            shown=GREY,
            why=_DEPTH,
            content=_saved(floats * np.float32(factor), "TIFF", tiffinfo=tags),
        )
    yield Odd(
        name="float_255.tif",
        what="floats from 0 to 255",
        content=_saved(floats * 255, "TIFF"),
        shown=None,
        why=_REFUSED_RANGE,
        says="floats from 0 to 255",
    )
    yield Odd(
        name="float_ranged.tif",
        what="floats, `value_range: [-1, 1]`",
        shown=GREY,
        why=_DEPTH,
        content=_saved(2 * floats - 1, "TIFF"),
        spec=(("value_range", (-1, 1)),),
    )
    holes = np.where(GREY == 0, np.nan, floats).astype(np.float32)
    yield Odd(
        name="nan.tif",
        what="floats, some not a number",
        content=_saved(holes, "TIFF"),
        shown=None,
        why="not a number has no grey",
        says="floats from nan",
    )
    whole = GREY.astype(np.int32)
    yield Odd(
        name="32.tif",
        what="32 bits, 0 to 255",
        content=_saved(whole, "TIFF"),
        shown=None,
        why=_REFUSED_RANGE,
        says="from 0 to 255",
    )
    yield Odd(
        name="32_ranged.tif",
        what="32 bits, `value_range: [0, 255]`",
        content=_saved(whole, "TIFF"),
        shown=GREY,
        why=_DEPTH,
        spec=(("value_range", (0, 255)),),
    )
    signed = (GREY.astype(np.int16) - 100).astype("<i2").tobytes()
    yield Odd(
        name="signed.tif",
        what="signed 16 bits",
        content=_tiff(signed, 16, t339=2),
        shown=None,
        why=_REFUSED_RANGE,
        says="from -100 to 155",
    )
    yield Odd(
        name="signed_ranged.tif",
        what="signed 16 bits, `value_range: [-100, 155]`",
        shown=GREY,
        why=_DEPTH,
        content=_tiff(signed, 16, t339=2),
        spec=(("value_range", (-100, 155)),),
    )


def _several() -> Iterator[Odd]:
    first, second = Image.fromarray(COLOUR), Image.fromarray(COLOUR[::-1].copy())
    says = "1 file of several frames or pages"
    for suffix, kind, words, options in (
        ("gif", "GIF", "animated GIF", {}),
        ("png", "PNG", "animated PNG", {}),
        ("webp", "WEBP", "animated WebP", {"lossless": True}),
        ("tif", "TIFF", "TIFF of two pages", {}),
    ):
        content = _saved(first, kind, save_all=True, append_images=[second], **options)
        yield Odd(name=f"two.{suffix}", what=words, content=content, shown=COLOUR, why=_FIRST, says=says)
    content = _saved(first, "MPO", save_all=True, append_images=[second], quality=95, subsampling=0)
    yield Odd(
        name="two.jpg", what="JPEG of two pictures (MPO)", content=content, shown=COLOUR, why=_FIRST, says=says, far=16
    )


def _damaged() -> Iterator[Odd]:
    png, jpeg = (_saved(np.asarray(Image.fromarray(COLOUR).resize((64, 64))), kind) for kind in ("PNG", "JPEG"))
    for name, what, content, says in (
        ("cut.png", "PNG cut short", png[: len(png) // 2], r"cut.png \("),
        ("cut.jpg", "JPEG cut short", jpeg[: len(jpeg) // 2], r"cut.jpg \(.*truncated"),
        ("crc.png", "PNG with a wrong checksum", png[:40] + b"\xff" + png[41:], r"crc.png \("),
        ("empty.png", "empty file", b"", r"empty.png \(empty\)"),
        ("text.png", "text called .png", b"to be done", r"text.png \(no image that Pillow knows\)"),
        ("page.jpg", "web page called .jpg", b"<!DOCTYPE html><html>404</html>", r"page.jpg \(no image"),
        ("archive.png", "archive called .png", b"PK\x03\x04" + bytes(60), r"archive.png \(no image"),
        ("bomb.png", "PNG of 30,000 × 30,000", _png(8, 0, b"", width=30_000, height=30_000), r"bomb.png \("),
    ):
        yield Odd(name=name, what=what, content=content, shown=None, why=_BROKEN, says=f"cannot read the image.*{says}")


def _shapes() -> Iterator[Odd]:
    one = np.full((1, 1, 3), (10, 20, 30), np.uint8)
    yield Odd(
        name="one.png",
        what="1 × 1",
        content=_saved(one, "PNG"),
        shown=one.repeat(SIDE, 0).repeat(SIDE, 1),
        why="resized like any other",
    )
    wide = np.concatenate([COLOUR * 0, COLOUR, COLOUR * 0 + 255], 1)
    yield Odd(
        name="wide.png",
        what="48 × 16",
        content=_saved(wide, "PNG"),
        shown=COLOUR,
        why="`fit: crop` takes the largest centred square",
    )
    small = COLOUR[::4, ::2]
    padded = np.full((8, 8, 3), 255, np.uint8)
    padded[2:6] = small
    yield Odd(
        name="pad.png",
        what="8 × 4, `fit: pad`",
        content=_saved(np.ascontiguousarray(small), "PNG"),
        shown=padded,
        why="`fit: pad` adds `data.background`",
        spec=(("fit", "pad"), ("image_size", 8)),
    )


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Something odd in a folder of two families, `a` and `b`.

    Attributes:
        what: What it is, in words.
        make: Puts it into the folder.
        says: The line that counts it; empty where it is simply read.
        why: Why.
    """

    what: str
    make: Callable[[Path], object]
    says: str
    why: str


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    def make(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return make


def odd_entries() -> Iterator[Entry]:
    """All cases of what may lie in a folder."""
    png = _saved(255 - COLOUR, "PNG")
    hidden = "an earlier copy or a thumbnail, which would be another family"
    no_image = "Pillow reads no such file; counted by suffix, so that nothing vanishes"
    nested = "a family is one folder; move them up to use them"
    for name in ("notes.txt", "notes.pdf", "feat.h5", "photo.heic", "drawing.svg", "clip.mpg", "drawing.eps"):
        suffix = name[name.index(".") :]
        yield Entry(
            what=f"`a/{name}`",
            make=_write(f"a/{name}", b"some content"),
            why=no_image,
            says=f"1 file that is no image ({suffix})",
        )
    yield Entry(
        what="`a/README`, text without a suffix",
        make=_write("a/README", b"P1 text"),
        why=no_image,
        says="1 file that is no image (no suffix)",
    )
    for name in ("._IMG.jpg", ".DS_Store"):
        yield Entry(what=f"`a/{name}`", make=_write(f"a/{name}", b"junk"), says="1 hidden file", why=hidden)
    for name in (".thumbnails", "__MACOSX", "@eaDir"):
        yield Entry(what=f"`{name}/1.png`", make=_write(f"{name}/1.png", png), says="1 hidden folder", why=hidden)
    yield Entry(
        what="`a/Thumbs.db`", make=_write("a/Thumbs.db", b"junk"), says="1 file that is no image (.db)", why=no_image
    )
    yield Entry(
        what="`a/older/1.png`",
        make=_write("a/older/1.png", png),
        why=nested,
        says="1 folder inside a family's folder, with 1 image",
    )
    yield Entry(
        what="`a/x.png/1.png`, a folder",
        make=_write("a/x.png/1.png", png),
        why=nested,
        says="1 folder inside a family's folder, with 1 image",
    )
    yield Entry(
        what="`1.png` beside the families",
        make=_write("1.png", png),
        says="1 image outside any family's folder",
        why="it belongs to no family",
    )
    yield Entry(
        what="`empty/`, a folder",
        make=lambda root: (root / "empty").mkdir(),
        why="a family needs images",
        says="1 folder without images (empty)",
    )
    yield Entry(
        what="`a/gone.png`, a link to nothing",
        make=lambda root: (root / "a/gone.png").symlink_to("none"),
        says="1 entry that is no file",
        why="there is nothing to read",
    )
    yield Entry(
        what="`a/pipe.png`, a named pipe",
        make=lambda root: os.mkfifo(root / "a/pipe.png"),
        says="1 entry that is no file",
        why="to read it would wait for ever",
    )
    yield Entry(
        what="`a/copy.png`, a copy of `a/0.png`",
        says="1 exact duplicate",
        why="a record counts once",
        make=lambda root: (root / "a/copy.png").write_bytes((root / "a/0.png").read_bytes()),
    )
    yield Entry(
        what="`a/copy.png`, a copy of `b/0.png`, which is private",
        why="public copies of private images leave",
        says="1 image of the public family 'a', equal to images of the private family 'b'",
        make=lambda root: (root / "a/copy.png").write_bytes((root / "b/0.png").read_bytes()),
    )


# Folders' names that have tripped a program before: each must come out as the name of a family.
ODD_NAMES = (
    "01",
    "on",
    "1.10",
    "0x1f",
    "null",
    "été",
    "e\u0301te\u0301 2",
    "two words",
    "it's",
    'a "quote"',
    "a,b",
    "[a]",
    "{a}",
    "a: b",
    "#1",
    "a#b",
    "a+b",
    "-x",
    "100%",
    "$HOME",
    "_a_",
    "a\\b",
    "~",
    "写真",
    "🙂",
    "folder:x",
    "x.png",
    "*",
)


def write_families(root: Path, names: tuple[str, ...] = ("a", "b"), each: int = 3) -> None:
    """A folder with ``each`` pictures in every family, all different."""
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(each):
            image = rng.integers(0, 256, (SIDE, SIDE), np.uint8)
            Image.fromarray(image).save(root / name / f"{number}.png")


def spec_of(case: Odd, channels: int = 3) -> DataSpec:
    """The spec that a case is read with."""
    return DataSpec(**{"source": "folder", "image_size": SIDE, "channels": channels, **dict(case.spec)})


def entry_spec(root: Path) -> DataSpec:
    """The spec that a folder of odd entries is read with."""
    return DataSpec(source=f"folder:{root}", private=("b",), cluster_sizes=(), min_task_size=1)


def far_from_shown(case: Odd, image: Pixels) -> float:
    """Largest difference of a decoded image, (H, W, C), from what a viewer shows, in grey levels."""
    shown = Image.fromarray(case.shown if case.shown is not None else COLOUR)
    wanted = np.asarray(shown.convert("L" if image.shape[-1] == 1 else "RGB"), np.float64).reshape(image.shape)
    return float(np.abs(image - wanted).max())


def _outcome(case: Odd) -> str:
    try:
        (image,), remarks = decode([(case.name, case.content)], spec_of(case))
    except UserError as error:
        return f"refused: {error}"
    far = far_from_shown(case, image)
    return "; ".join(["read as shown" if far <= case.far else f"**{far:g} grey levels from what is shown**", *remarks])


def _counted(case: Entry) -> str:
    with tempfile.TemporaryDirectory() as folder:
        write_families(Path(folder))
        case.make(Path(folder))
        collection = Folder.load(entry_spec(Path(folder)))
    return "; ".join((*collection.passed_over, *collection.remarks)) or "read"


def page() -> str:
    """The table as Markdown."""
    rows = [f"| {case.what} (`{case.name}`) | {_outcome(case)} | {case.why} |" for case in odd_files()]
    rows += [f"| {case.what} | {_counted(case)} | {case.why} |" for case in odd_entries()]
    return "\n".join(
        [
            "# Odd files, and what is made of them",
            "",
            f"{len(rows)} files and folders, each read when this page was made with "
            '`python -m dphyper.datasets.odd_files > docs/odd_files.md`. "As shown" means that every pixel was '
            "compared with what a viewer shows. What is refused ends the load with that line; "
            "[data.md](data.md) says how to mend it.",
            "",
            "| input | what we do | why |",
            "|---|---|---|",
            *rows,
        ]
    )


if __name__ == "__main__":
    print(page())
