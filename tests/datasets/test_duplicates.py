"""Copies are found whatever became of them on the way, and different pictures are left alone."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from dphyper.core.specs import DataSpec
from dphyper.datasets import _duplicates
from dphyper.datasets._duplicates import NEAR, first_of_equals, nearly_equal
from dphyper.datasets._images import fit_arrays

Images = NDArray[np.uint8]


def rms(a: Images, b: Images) -> NDArray[np.float64]:
    """(P, Q) root mean square differences, by the definition."""
    difference = a[:, None].astype(np.float64) - b[None]
    return np.sqrt((difference**2).mean((2, 3, 4)))


@pytest.mark.parametrize("shape", [(8, 8, 1), (7, 13, 1), (5, 5, 3), (32, 32, 3), (17, 40, 1)])
def test_all_pairs_within_the_limit_and_no_others(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    closed = rng.integers(0, 256, (40, *shape), np.uint8)
    closed[20:] = rng.integers(0, 256, (20, 1, 1, 1), np.uint8)  # flat ones
    noise = rng.normal(0, np.linspace(0, 16, 200)[:, None, None, None], (200, *shape))
    images = np.clip(closed[rng.integers(0, 40, 200)] + noise, 0, 255).astype(np.uint8)
    images[::5] = rng.integers(0, 256, (40, *shape), np.uint8)
    distances = rms(images, closed)
    expected = np.where(distances.min(1) <= NEAR, distances.argmin(1), -1)
    assert {-1, *range(40)} >= {*expected.tolist()}
    assert 50 < (expected >= 0).sum() < 150
    for block in (_duplicates._BLOCK, 300):  # in one piece, and in many
        monkeypatch.setattr(_duplicates, "_BLOCK", block)
        found = nearly_equal(images, closed)
        assert ((found >= 0) == (expected >= 0)).all()
        hits = found >= 0
        assert np.allclose(distances[hits, found[hits]], distances.min(1)[hits])


def test_equal_blocks_alone_make_no_copy() -> None:
    rng = np.random.default_rng(0)
    texture = rng.choice(np.asarray([-30, 30]), (2, 16, 16, 1))
    texture[:, 1::2] = -texture[:, ::2]  # every block has the mean 128
    images = (128 + texture).astype(np.uint8)
    assert rms(images[:1], images[1:]) > NEAR
    assert nearly_equal(images[:1], images[1:]).tolist() == [-1]
    at_limit = images[:1] + np.uint8(NEAR)  # and the blocks differ as much
    assert nearly_equal(images[:1], at_limit).tolist() == [0]
    assert nearly_equal(images[:1], at_limit + 1).tolist() == [-1]


def test_nothing_is_near_nothing() -> None:
    images = np.zeros((3, 4, 4, 1), np.uint8)
    assert nearly_equal(images, images[:0]).tolist() == [-1, -1, -1]
    assert nearly_equal(images[:0], images).tolist() == []


def photographs() -> list[Image.Image]:
    """Pieces of two photographs, of different sizes and larger than the records; no two overlap."""
    pieces = []
    for number, photograph in enumerate(load_sample_images().images):
        for top in range(0, 300, 130):
            for left in range(0, 600, 130):
                size = 100 + (7 * len(pieces)) % 29
                pieces.append(Image.fromarray(photograph[top : top + size, left : left + size + 3 * number]))
    return pieces


def encoded(kind: str, quality: int) -> Callable[[Image.Image], Image.Image]:
    def encode(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, kind, quality=quality)
        return Image.open(buffer).convert("RGB")

    return encode


def resized(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)))


def brighter(by: int) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.point(lambda value: value + by)


def png(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return Image.open(buffer)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 75": encoded("JPEG", 75),
    "JPEG 85": encoded("JPEG", 85),
    "JPEG 95": encoded("JPEG", 95),
    "PNG of JPEG": lambda image: png(encoded("JPEG", 75)(image)),
    "WebP": encoded("WEBP", 75),
    "smaller": resized(0.99),
    "larger": resized(1.01),
    "half": resized(0.5),
    "brighter": brighter(3),
    "darker": brighter(-3),
    "256 colours": lambda image: image.quantize(256).convert("RGB"),
}


@pytest.mark.parametrize("spec", [DataSpec(), DataSpec(image_size=32), DataSpec(image_size=32, channels=3)])
def test_copies_of_photographs_are_found_and_other_pieces_are_not(spec: DataSpec) -> None:
    pieces = photographs()
    originals = fit_arrays(map(np.asarray, pieces), spec)
    for name, copied in COPIES.items():
        copies = fit_arrays((np.asarray(copied(piece)) for piece in pieces), spec)
        assert nearly_equal(copies, originals).tolist() == [*range(len(pieces))], name
    mirrored = originals[:, :, ::-1]
    assert (nearly_equal(mirrored, originals) < 0).mean() > 0.5  # as the module says; skies are their own mirrors
    half = len(pieces) // 2
    assert (nearly_equal(originals[:half], originals[half:]) < 0).all()


def test_first_of_equals_follows_the_order_and_leaves_rows_out() -> None:
    images = np.asarray([0, 1, 0, 1, 0], np.uint8).reshape(-1, 1, 1, 1)
    assert first_of_equals(images, np.arange(5)).tolist() == [0, 1, 0, 1, 0]
    assert first_of_equals(images, np.asarray([4, 3, 2, 1])).tolist() == [0, 3, 4, 3, 4]
