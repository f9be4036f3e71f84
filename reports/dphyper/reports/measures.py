"""How a metric is read: its name in print, the units of its numbers, and which of two numbers is better.

All of it comes from the metric's class, so that a metric of an outside package is read rightly too. Nothing here
computes a metric, and no torch is imported.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from dphyper.metrics.metric import HEADLINE, METRICS


class Direction(NamedTuple):
    """Which numbers of a metric are the good ones, as a sign and in words.

    Attributes:
        sign: 1 where higher is better, -1 where lower is.
        better: "higher" or "lower".
        best: "highest" or "lowest".
        good_side: Where a better number lies, "above" or "below" the other.
        bad_side: The opposite.
    """

    sign: int
    better: str
    best: str
    good_side: str
    bad_side: str


HIGHER_IS_BETTER = Direction(1, "higher", "highest", "above", "below")
LOWER_IS_BETTER = Direction(-1, "lower", "lowest", "below", "above")


def direction(metric: str) -> Direction:
    """The direction of a metric.

    >>> direction("frechet").better
    'lower'
    """
    return HIGHER_IS_BETTER if METRICS[metric].higher_is_better else LOWER_IS_BETTER


def metric_label(metric: str, extractor: str) -> str:
    """The name of a metric inside a sentence; never plain FID on other features than Inception's.

    >>> metric_label("frechet", "inception"), metric_label("frechet", "efficientnet_lite0")
    ('FID', 'FD (EfficientNet-Lite0)')
    """
    return METRICS[metric].label_on(extractor)


def metric_title(metric: str, extractor: str) -> str:
    """`metric_label` where it begins a sentence or stands alone.

    >>> metric_title("denoising_loss", "inception")
    'Denoising loss'
    """
    label = metric_label(metric, extractor)
    return label[:1].upper() + label[1:]


def in_units(metric: str) -> str:
    """The unit in which tables print a metric, in words; empty where they print it as it is.

    >>> in_units("denoising_loss"), in_units("frechet")
    (' in units of 1e-4', '')
    """
    scale = METRICS[metric].scale
    return "" if scale == 1 else f" in units of {np.format_float_scientific(scale, trim='-', exp_digits=1)}"


def known_metrics(names: Iterable[str]) -> list[str]:
    """Those of some names that are registered metrics: the headline metric first, then by `Metric.order` and name."""
    found = [(metric != HEADLINE, _place(metric), metric) for metric in {*names} if metric in METRICS]
    return [metric for *_, metric in sorted(found)]


def tabled_metrics(names: Iterable[str]) -> list[str]:
    """The metrics of a table that shows several, by `Metric.order` and name.

    >>> tabled_metrics(["frechet", "kernel", "denoising_loss", "seconds_adapt"])
    ['denoising_loss', 'frechet']
    """
    return sorted((m for m in known_metrics(names) if METRICS[m].order is not None), key=lambda m: (_place(m), m))


def _place(metric: str) -> float:
    order = METRICS[metric].order
    return float("inf") if order is None else order
