"""New public tasks from old ones: the same images under another appearance.

A private family may differ from all public ones in how its images look, and not only in what they show: thinner,
blurred, grey on grey, light on dark. A public task whose images are all altered in one way is a task of that kind, and
costs no data. One alteration is drawn for a whole task; only added noise differs between its images. Whether
alterations of this kind are those that a private family needs is not known here.

Shapes: b images, H W C height, width, channels; images are uint8.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional

Alteration = Callable[[Tensor], Tensor]
"""(b, C, H, W) floats in [0, 1] to floats of the same shape."""


def alter(images: NDArray[Any], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The images under an appearance that ``rng`` draws; at least one thing about them is altered.

    Args:
        images: (b, H, W, C) uint8.
        rng: Draws the alteration, and the noise of each image where there is any.

    Returns:
        (b, H, W, C).

    >>> image = np.full((1, 4, 4, 1), 51, np.uint8)
    >>> int(alter(image, np.random.default_rng(2)).mean())
    120
    """
    drawn: list[Alteration] = []
    while not drawn:
        drawn = draw_alterations(rng)
    x = torch.from_numpy(images.astype(np.float32) / 255).permute(0, 3, 1, 2)
    for change in drawn:
        x = change(x).clamp(0, 1)
    return (x.permute(0, 2, 3, 1) * 255).round().byte().numpy()


def draw_alterations(rng: np.random.Generator) -> list[Alteration]:
    """Alterations in the order in which they are applied: shape first, light after it, noise last.

    The ranges are our choice: as wide as leaves what an icon shows to be seen at 16 pixels.
    """
    chances = {_move: 0.5, _thicken: 0.4, _blur: 0.4, _gamma: 0.3, _flatten: 0.4, _invert: 0.3, _roughen: 0.2}
    return [make(rng) for make, chance in chances.items() if rng.uniform() < chance]


def _move(rng: np.random.Generator) -> Alteration:
    angle, shear = rng.uniform(-25, 25), rng.uniform(-20, 20)
    scale = float(np.exp(rng.uniform(np.log(0.6), np.log(1.25))))

    def change(x: Tensor) -> Tensor:
        background = [float(value) for value in _border(x)]
        moved: Tensor = functional.affine(
            x,
            angle=angle,
            translate=[0.0, 0.0],
            scale=scale,
            shear=[shear, 0.0],
            interpolation=functional.InterpolationMode.BILINEAR,
            fill=background,
        )
        return moved

    return change


def _border(x: Tensor) -> Tensor:
    """(C,) median of the images' corners, which is taken for the background."""
    return x[..., [0, 0, -1, -1], [0, -1, 0, -1]].permute(1, 0, 2).flatten(1).median(1).values


def _thicken(rng: np.random.Generator) -> Alteration:
    sign, share = (1 if rng.uniform() < 0.5 else -1), rng.uniform(0.4, 1)

    def change(x: Tensor) -> Tensor:
        grown = sign * torch.nn.functional.max_pool2d(sign * x, 3, 1, 1)
        return x.lerp(grown, share)

    return change


def _blur(rng: np.random.Generator) -> Alteration:
    sigma = float(np.exp(rng.uniform(np.log(0.4), np.log(1.5))))
    return lambda x: functional.gaussian_blur(x, kernel_size=[7, 7], sigma=[sigma, sigma])


def _gamma(rng: np.random.Generator) -> Alteration:
    exponent = float(np.exp(rng.uniform(np.log(0.4), np.log(2.5))))
    return lambda x: x**exponent


def _flatten(rng: np.random.Generator) -> Alteration:
    low, high = rng.uniform(0, 0.4), rng.uniform(0.6, 1)
    return lambda x: low + (high - low) * x


def _invert(rng: np.random.Generator) -> Alteration:
    return lambda x: 1 - x


def _roughen(rng: np.random.Generator) -> Alteration:
    std, seed = rng.uniform(0.02, 0.12), int(rng.integers(2**62))

    def change(x: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        return x + std * noise

    return change
