"""From values to numbers: means with intervals, paired differences, what is best.

A value has two seeds: the training (base model, frozen factors, public phases) and the draw (private records, samples,
noise). With several of each, the interval is over both as crossed random factors (`crossed`) and speaks for the recipe.
With one training it is Student's t over draws alone, and speaks for that training. Differences are paired by training
and draw. One seed has no interval (NaN), never a zero. The 95% of an interval holds for that interval alone.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from dphyper.reports.measures import direction
from dphyper.reports.sections import POINT, SEEDS, SERIES, Section

Pairs = Sequence[tuple[int, int]]
"""Training and draw of each of some values."""
CONFIDENCE = 0.95  # of every interval; captions and the page say so in words


class Interval(NamedTuple):
    """A mean with its 95% Student-t interval, mean ± half.

    Attributes:
        mean: The mean of all values.
        half: Half of the width; NaN below two values.
        seeds: Draws in each training.
        trainings: How many trainings; 1 where the interval is over draws alone.
        p: Two-sided p-value of a mean of 0, by the same t; NaN without an interval.
    """

    mean: float
    half: float
    seeds: int
    trainings: int = 1
    p: float = math.nan

    @property
    def sign(self) -> int:
        """-1 or 1 where the interval lies wholly below or above 0, else 0 (also without an interval).

        >>> Interval(-3.0, 1.0, 5).sign, Interval(3.0, 4.0, 5).sign, Interval(-3.0, math.nan, 1).sign
        (-1, 0, 0)
        """
        return int(np.sign(self.mean)) if abs(self.mean) > self.half else 0


def interval(values: Iterable[float]) -> Interval:
    """Mean and half width of the 95% Student-t interval of independent values.

    >>> found = interval([1.0, 2.0, 3.0])
    >>> found.mean, round(found.half, 3), found.seeds, round(found.p, 3)
    (2.0, 2.484, 3, 0.074)
    >>> interval([1.0])
    Interval(mean=1.0, half=nan, seeds=1, trainings=1, p=nan)
    """
    array = np.asarray([*values], dtype=float)
    if len(array) < 2:
        return Interval(float(array.mean()) if len(array) else math.nan, math.nan, len(array))
    return _student(float(array.mean()), float(array.std(ddof=1)) / math.sqrt(len(array)), len(array) - 1, len(array))


def crossed(pairs: Pairs, values: Iterable[float]) -> Interval:
    """Mean and 95% interval of values that differ by training and by draw, both taken as random and crossed.

    With T, D and E the mean squares of trainings, draws and the rest in the two-way analysis of variance of I × J
    values, T + D − E estimates IJ times the variance of their mean. Two random factors share few degrees of freedom, so
    this is never taken below T or D, and t has Satterthwaite's degrees of freedom, at least min(I, J) − 1
    (Satterthwaite 1946, doi:10.2307/3002019; Burdick and Graybill 1992, chapter 5). Simulated, a 3 × 3 interval holds
    the mean in 96% of cases and more, and one of 2 × 10, the worst case, in 90% (``tests/reports/test_aggregate.py``).

    Args:
        pairs: Training and draw of each value. Where a training misses a draw, the largest block without a hole counts.
        values: One for each pair.

    Two trainings that differ by 2 on average, three draws:

    >>> pairs = [(training, draw) for training in range(2) for draw in range(3)]
    >>> found = crossed(pairs, [1.0, 2.0, 3.0, 2.0, 4.0, 6.0])
    >>> found.mean, round(found.half, 2), found.seeds, found.trainings
    (3.0, 5.17, 3, 2)
    """
    if len({training for training, _ in pairs}) < 2:
        return interval(values)
    array = _whole_block(dict(zip(pairs, values, strict=True)))
    trainings, draws = array.shape
    if min(array.shape) < 2:
        return interval(array.ravel())._replace(seeds=draws, trainings=trainings)
    mean, by_training, by_draw = array.mean(), array.mean(axis=1), array.mean(axis=0)
    rest = array - by_training[:, None] - by_draw + mean
    freedoms = np.array([trainings - 1, draws - 1, (trainings - 1) * (draws - 1)])
    squares = np.array(
        [draws * by_training.var(ddof=1), trainings * by_draw.var(ddof=1), (rest**2).sum() / freedoms[2]]
    )
    square = max(squares[0] + squares[1] - squares[2], squares[0], squares[1])
    least = min(trainings, draws) - 1
    freedom = max(square**2 / (squares**2 / freedoms).sum(), least) if square else least
    return _student(float(mean), math.sqrt(square / array.size), freedom, draws)._replace(trainings=trainings)


def _whole_block(values: dict[tuple[int, int], float]) -> NDArray[np.float64]:
    """The largest block without a hole, trainings × draws, of the trainings with most draws; of equals, the tallest."""
    trainings, draws = (sorted({*seeds}) for seeds in zip(*values, strict=True))
    wide = np.array([[values.get((training, draw), math.nan) for draw in draws] for training in trainings])
    order = np.argsort(np.isnan(wide).sum(axis=1), kind="stable")
    blocks = (wide[order[:count]] for count in range(1, len(order) + 1))
    whole = [block[:, ~np.isnan(block).any(axis=0)] for block in blocks]
    return max(whole, key=lambda block: (block.size, len(block)))


def _student(mean: float, error: float, freedom: float, seeds: int) -> Interval:
    """The interval of a mean with a standard error."""
    half = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
    p = 2 * float(special.stdtr(freedom, -abs(mean) / error)) if error else float(mean == 0)
    return Interval(mean, half, seeds, p=p)


def aggregate(values: pd.DataFrame) -> pd.DataFrame:
    """Means over trainings and draws.

    Returns:
        One row for each metric and point: these columns and ``mean``, ``half``, ``low``, ``high``, ``seeds``,
        ``trainings`` and ``doubted`` (of some value).
    """
    groups = values.groupby(["metric", *POINT])
    rows = [
        (
            *key,
            *crossed([*zip(*(group[seed] for seed in SEEDS), strict=True)], group["value"])[:4],
            group["doubted"].any(),
        )
        for key, group in groups
    ]
    frame = pd.DataFrame(rows, columns=["metric", *POINT, "mean", "half", "seeds", "trainings", "doubted"])
    # A frame without rows would have no types, and ε would be no number.
    kinds = {"mean": float, "half": float, "seeds": int, "trainings": int, "doubted": bool}
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
    return pd.concat(parts, ignore_index=True).drop_duplicates(["metric", *POINT, *SEEDS])


def beside(*points: pd.DataFrame) -> tuple[Pairs, NDArray[np.float64]]:
    """The values of several points of one metric, over the trainings and draws that all of them have.

    Returns:
        These pairs, and (points, pairs) values.
    """
    found = [
        dict(zip(zip(*(point[seed] for seed in SEEDS), strict=True), point["value"], strict=True)) for point in points
    ]
    pairs = sorted(set.intersection(*map(set, found)))
    return pairs, np.array([[own[pair] for pair in pairs] for own in found])


def paired_difference(first: pd.DataFrame, second: pd.DataFrame) -> Interval:
    """Interval of first − second over the trainings and draws that both have; both are one point of one metric."""
    pairs, (one, other) = beside(first, second)
    return crossed(pairs, one - other)


def ratio(pairs: Pairs, above: NDArray[np.float64], below: NDArray[np.float64]) -> Interval:
    """The ratio of two means, with the interval of the delta method, and without a p-value.

    That is the interval of what the ratio leaves of the numerator, over the mean denominator.

    >>> found = ratio([(0, 0), (0, 1), (0, 2)], np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]))
    >>> found.mean, found.half
    (0.5, 0.0)
    """
    length = crossed(pairs, below).mean
    share = crossed(pairs, above).mean / length
    rest = crossed(pairs, above - share * below)
    return rest._replace(mean=share, half=rest.half / abs(length), p=math.nan)


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
    of their difference, paired by training and draw, includes 0. Never bold are numbers without a privacy guarantee,
    with a row behind them that supports no claim, of options whose choice is not recorded, or of one seed.
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
            if part is lead or (np.isfinite(difference.half) and direction(key[0]).sign * difference.sign >= 0):
                bold.add(key)
    return bold
