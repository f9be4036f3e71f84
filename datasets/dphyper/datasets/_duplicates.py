"""Finds equal and nearly equal images, so that no copy of a private image stays public.

Two images are nearly equal if the root mean square of their difference, over all pixels and channels of the resized
records, is at most `NEAR`. Guarantees that every such pair is found, to float32's precision at the limit, in bounded
memory. Not found: a copy that was mirrored, turned, cropped, recoloured, or brightened by more than `NEAR`.

Shapes: P open images, Q closed images, D = H·W·C pixels, H W C height, width, channels, S numbers of a signature.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

# In grey levels of 255. A copy that stays public costs more than a public image that leaves, so the limit lies above
# every copy that was tried: JPEG of quality 75 to 95, WebP of 75, a resize by 1 %, a brightness of ±3. The farthest was
# at 9.5 (JPEG of 75, of a colour photograph no larger than the record). Few different pictures lie below it. Of 200
# photographs of CIFAR-10 the closest two are at 21. One public image in a thousand is as near to a private family as
# 15 (glyphs), 14 (icons), 12 (chest X-rays) or, where ink is faint, 8 (Omniglot at 16×16).
NEAR = 10.0

SIGNATURE = 8  # blocks along each side of an image; no pair is missed at any number
_BLOCK = 2**23  # most float32 numbers in an array, 32 MiB
_SLACK = 1.0  # added to the squared limit: ten times the error of float32's products, a hundredth of NEAR²


def first_of_equals(images: NDArray[np.uint8], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each image, the row of the first image of equal content.

    Args:
        images: (N, H, W, C) the pool.
        order: Rows in the order that decides which is first. Rows that are not in it are compared with none.

    Returns:
        (N,) rows; an image that is first, or is compared with none, has its own row.
    """
    first = np.arange(len(images))
    seen: dict[bytes, int] = {}
    for row in order:
        first[row] = seen.setdefault(hashlib.blake2b(images[row].tobytes(), digest_size=16).digest(), int(row))
    return first


def nearly_equal(
    images: NDArray[np.uint8], closed: NDArray[np.uint8], limit: float = NEAR, signature: int = SIGNATURE
) -> NDArray[np.int64]:
    """For each open image the closed one that it nearly equals, if there is one.

    Mean grey values over blocks are compared first. The root mean square of their differences, each block weighted by
    its area, never exceeds that of the pixels (Jensen's inequality), so no pair is missed. The pairs that remain are
    compared in full.

    Args:
        images: (P, H, W, C) open images.
        closed: (Q, H, W, C) closed images.
        limit: Root mean square difference up to which two images are nearly equal, in grey levels of 255.
        signature: Blocks along each side.

    Returns:
        (P,) the row of the nearest closed image where it is within the limit, else -1.

    >>> black, grey, white = (np.full((1, 4, 4, 1), value, np.uint8) for value in (0, 100, 255))
    >>> nearly_equal(np.concatenate([grey + 10, grey + 11, white]), np.concatenate([black, grey, white]))
    array([ 1, -1,  2])
    """
    found = np.full(len(images), -1)
    closed_QS = _signatures(closed, signature)
    step = max(1, _BLOCK // max(len(closed), images[:1].size, 1))
    for start in range(0, len(images) if len(closed) else 0, step):
        part = images[start : start + step]
        near_PQ = _squared_distances(_signatures(part, signature), closed_QS) <= limit**2 + _SLACK
        rows, columns = np.flatnonzero(near_PQ.any(1)), np.flatnonzero(near_PQ.any(0))
        if len(rows):
            nearest = columns[_nearest(part[rows], closed, columns)]
            difference = part[rows].astype(np.int64) - closed[nearest]
            within = (difference**2).reshape(len(rows), -1).mean(1) <= limit**2
            found[start + rows[within]] = nearest[within]
    return found


def _nearest(images: NDArray[np.uint8], closed: NDArray[np.uint8], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each image an index into ``columns``, the rows of ``closed`` that are compared: the nearest by all pixels."""
    images_PD = _flat(images)
    best, nearest = np.full(len(images), np.inf), np.zeros(len(images), np.int64)
    step = max(1, _BLOCK // max(images_PD.shape))
    for start in range(0, len(columns), step):
        distances = _squared_distances(images_PD, _flat(closed[columns[start : start + step]]))
        here = distances.argmin(1)
        smallest = distances[np.arange(len(images)), here]
        better = smallest < best
        best[better], nearest[better] = smallest[better], start + here[better]
    return nearest


def _flat(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(P, D) pixels less mid-grey, over √D, so that Euclidean distances are root mean squares."""
    pixels = images.reshape(len(images), -1).astype(np.float32) - np.float32(127.5)
    pixels /= np.float32(np.sqrt(pixels.shape[1]))
    return pixels


def _signatures(images: NDArray[np.uint8], blocks: int) -> NDArray[np.float32]:
    """(P, S) mean grey less mid-grey of each of ``blocks`` × ``blocks`` blocks, times the root of its share of area."""
    _, height, width, channels = images.shape
    down, across = (np.unique(np.arange(blocks) * side // blocks) for side in (height, width))
    step = max(1, _BLOCK // max(1, height * width * channels))
    parts = [np.empty((0, len(down) * len(across)), np.float32)]
    for start in range(0, len(images), step):
        grey = images[start : start + step].mean(-1, dtype=np.float32) - np.float32(127.5)
        sums = np.add.reduceat(np.add.reduceat(grey, down, 1), across, 2)
        areas = np.outer(np.diff(down, append=height), np.diff(across, append=width))
        sums /= np.sqrt(areas * float(height * width)).astype(np.float32)
        parts.append(sums.reshape(len(grey), -1))
    return np.concatenate(parts)


def _squared_distances(a_PD: NDArray[np.float32], b_QD: NDArray[np.float32]) -> NDArray[np.float32]:
    """(P, Q) squared Euclidean distances."""
    distances = a_PD @ b_QD.T
    distances *= -2
    distances += (a_PD**2).sum(1)[:, None]
    distances += (b_QD**2).sum(1)
    return distances
