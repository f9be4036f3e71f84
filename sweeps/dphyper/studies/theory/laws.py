"""The theory in closed form: what one private release costs in k or in d dimensions, constants included.

``docs/theory.md`` derives it. No parameter is fitted to measured risks: the constants are Gaussian integrals, computed
by Monte Carlo. It holds for isotropic Gaussian records and ‖w‖ = 1 only, and its subspace error is of first order.
"""

import math
from functools import lru_cache

import numpy as np

from dphyper.privacy.accounting import gaussian_noise_multiplier
from dphyper.studies.theory.points import DELTA, NOISE_STD, Point

COUNT_WEIGHT = 1 / 3  # of the count that the hypernetwork releases with its sum, relative to the clip norm
SAMPLES = (2, 400_000)  # of a Monte Carlo integral


@lru_cache(maxsize=256)
def clip_statistics(dimension: int) -> tuple[float, float, float]:
    """Clip norm, γ and trace of the covariance of clipped y·x in that dimension, by Monte Carlo for ‖w‖ = 1.

    >>> clip, scale, variance = clip_statistics(1)
    >>> round(clip, 3), round(scale, 2)  # √1.25; clipping nearly halves the mean
    (1.118, 0.52)
    """
    rng = np.random.default_rng(0)
    along, label_noise = rng.standard_normal(SAMPLES)
    norm = np.sqrt(along**2 + (rng.chisquare(dimension - 1, along.shape) if dimension > 1 else 0.0))
    y = along + NOISE_STD * label_noise
    clip = math.sqrt(dimension * (1 + NOISE_STD**2))
    factor = np.minimum(1, clip / np.abs(y * norm))
    scale = float((factor * y * along).mean())
    return clip, scale, float(((factor * y * norm) ** 2).mean()) - scale**2


def predict_risks(point: Point) -> dict[str, float]:
    """The theory at one point.

    Returns:
        ``privacy_*`` and ``sampling_*`` for one release in k dimensions (``subspace``) and in d (``ambient``), the
        bare rates ``rate_*``, p² log(1/δ)/(n² ε²), ``subspace_error``, ``misalignment``, and the totals
        ``theory_subspace`` and ``theory_ambient``.
    """
    finite = math.isfinite(point.epsilon)
    multiplier = gaussian_noise_multiplier(point.epsilon, DELTA) if finite else 0.0
    v = 1 + NOISE_STD**2
    out: dict[str, float] = {}
    for name, p, count_weight in (("subspace", point.k, COUNT_WEIGHT), ("ambient", point.d, 0.0)):
        clip, scale, variance = clip_statistics(p)
        out[f"privacy_{name}"] = p * (multiplier * clip * math.hypot(1, count_weight) / (scale * point.n)) ** 2
        out[f"sampling_{name}"] = variance / (scale**2 * point.n)
        out[f"rate_{name}"] = p**2 * math.log(1 / DELTA) / (point.n * point.epsilon) ** 2 if finite else 0.0
    records = point.public_tasks * point.public_size
    leak = (point.d - point.k) * point.k * v / records * (1 + v * point.k / point.public_size)
    sine = math.sin(math.radians(point.angle)) ** 2
    out["subspace_error"], out["misalignment"] = min(leak, 1.0) * (1 - sine), sine
    inside = out["privacy_subspace"] + out["sampling_subspace"]
    out["theory_subspace"] = inside + out["subspace_error"] + out["misalignment"]
    out["theory_ambient"] = out["privacy_ambient"] + out["sampling_ambient"]
    return out
