"""From values to numbers: means with intervals, paired differences, what is best.

Intervals are Student's t over seeds, and differences are paired by seed. One seed has no interval (NaN), never a zero.
The 95% of an interval holds for that interval alone: nothing is corrected for looking at many of them.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from dphyper.reports.measures import direction
from dphyper.reports.sections import POINT, SERIES, Section

CONFIDENCE = 0.95  # of every interval; captions and the page say so in words


class Interval(NamedTuple):
    """A mean with its 95% Student-t interval, mean ± half; ``half`` is NaN below two values."""

    mean: float
    half: float
    seeds: int

    @property
    def sign(self) -> int:
        """-1 or 1 where the interval lies wholly below or above 0, else 0 (also without an interval).

        >>> Interval(-3.0, 1.0, 5).sign, Interval(3.0, 4.0, 5).sign, Interval(-3.0, math.nan, 1).sign
        (-1, 0, 0)
        """
        return int(np.sign(self.mean)) if abs(self.mean) > self.half else 0


def interval(values: Iterable[float]) -> Interval:
    """Mean and half width of the 95% Student-t interval of independent values.

    >>> mean, half, seeds = interval([1.0, 2.0, 3.0])
    >>> mean, round(half, 3), seeds
    (2.0, 2.484, 3)
    >>> interval([1.0])
    Interval(mean=1.0, half=nan, seeds=1)
    """
    array = np.asarray([*values], dtype=float)
    if not len(array):
        return Interval(math.nan, math.nan, 0)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(array) - 1) * stats.sem(array) if len(array) > 1 else math.nan
    return Interval(float(array.mean()), float(half), len(array))


def aggregate(values: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds.

    Returns:
        One row for each metric and point: these columns and ``mean``, ``half``, ``low``, ``high``, ``seeds`` and
        ``doubted`` (of some value).
    """
    groups = values.groupby(["metric", *POINT])
    rows = [(*key, *interval(group["value"]), group["doubted"].any()) for key, group in groups]
    frame = pd.DataFrame(rows, columns=["metric", *POINT, "mean", "half", "seeds", "doubted"])
    # A frame without rows would have no types, and ε would be no number.
    kinds = {"mean": float, "half": float, "seeds": int, "doubted": bool}
    frame = frame.astype({**values.dtypes[["metric", *POINT]], **kinds})
    frame["low"], frame["high"] = frame["mean"] - frame["half"], frame["mean"] + frame["half"]
    return frame


def at_every_epsilon(section: Section) -> pd.DataFrame:
    """The values, with series that know no ε repeated at each budget where they have no value of their own."""
    values = section.values
    constant = (values["role"] != "method") & np.isinf(values["epsilon"])
    parts: list[pd.DataFrame] = [
        values[~constant],
        *(values[constant].assign(epsilon=epsilon) for epsilon in section.epsilons),
    ]
    return pd.concat(parts, ignore_index=True).drop_duplicates(["metric", *POINT, "seed"])


def paired_difference(first: pd.DataFrame, second: pd.DataFrame) -> Interval:
    """Interval of first − second over the seeds that both have; both are one point of one metric."""
    difference = first.set_index("seed")["value"] - second.set_index("seed")["value"]
    return interval(difference.dropna())


def best_series(values: pd.DataFrame) -> pd.DataFrame:
    """The values of the series with the best mean; ``values`` are of one metric and place, and none gives none."""
    parts = [part for _, part in values.groupby(SERIES)]
    return max(parts, key=goodness) if parts else values


def goodness(values: pd.DataFrame) -> float:
    """The mean of some values of one metric, with the sign that makes more better."""
    mean: float = values["value"].mean()
    return direction(values["metric"].iloc[0]).sign * mean


def best(values: pd.DataFrame) -> set[tuple[Any, ...]]:
    """The points (metric, then `POINT`) to print in bold: best private number of a column, and its ties.

    A column is one metric, task and finite ε of `at_every_epsilon`. A number is tied with the best when the interval
    of their difference, paired by seed, includes 0. Never bold are numbers without a privacy guarantee, with a row
    behind them that supports no claim, of options whose choice is not recorded, or of one seed.
    """
    bold = set()
    doubted = values.groupby(["metric", *POINT])["doubted"].transform("any")
    supported = values["private"] & ~doubted & (values["selection"] != "unknown")
    eligible = values[supported & np.isfinite(values["epsilon"])]
    for _, column in eligible.groupby(["metric", "split", "task", "epsilon"]):
        points = {key: part for key, part in column.groupby(["metric", *POINT]) if len(part) > 1}
        if not points:
            continue
        lead = max(points.values(), key=goodness)
        for key, part in points.items():
            difference = paired_difference(part, lead)
            if part is lead or (difference.seeds > 1 and direction(key[0]).sign * difference.sign >= 0):
                bold.add(key)
    return bold
