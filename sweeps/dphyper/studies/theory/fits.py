"""Fits of the theory study: exponents, crossings and ratios, each with a 95 % interval, from its runs alone.

Intervals of slopes are Student's t on the residuals of the regression. Those of means, crossings and ratios are
Student's t over worlds, because the data sets of a world share its subspace, its public data and what was learned from
them. A slope is of log mean excess risk on log2 of the axis, so a law with two terms shows a slope between theirs; the
slope of the theory's own sum at the same points stands beside it. No curve is fitted to look like the theory.
"""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from dphyper.reports.aggregate import interval

POINT = ["d", "k", "n", "epsilon", "angle", "public_tasks", "public_size"]
# Exponents of the privacy term: one release in k dimensions, or one in d. For ε this is the small-ε limit.
EXPONENTS = {"subspace": {"n": -2, "epsilon": -2, "d": 0, "k": 2}, "ambient": {"n": -2, "epsilon": -2, "d": 2, "k": 0}}
LAW = {
    "hypernetwork": "subspace",
    "dp_sgd_one_step_subspace": "subspace",
    "dp_sgd_fixed_subspace": "subspace",
    "dp_sgd_subspace": "subspace",
    "adassp_subspace": "subspace",
    "dp_sgd_one_step": "ambient",
    "dp_sgd_fixed": "ambient",
    "dp_sgd": "ambient",
    "adassp": "ambient",
}
RIVAL = "dp_sgd"
CHALLENGERS = ("hypernetwork", "hypernetwork_shrunk", "hypernetwork_learned")
CROSSED_AXES = ("angle", "public_tasks")


def fit_slope(axis: NDArray[np.float64], value: NDArray[np.float64]) -> tuple[float, float, float]:
    """Exponent of a power law by regression in logarithms, with the ends of its 95 % interval.

    Args:
        axis: Positive abscissae.
        value: Values; NaN throughout where one is not positive or fewer than three are left.

    >>> [round(x, 3) for x in fit_slope(np.array([1.0, 2.0, 4.0, 8.0]), np.array([1.0, 0.25, 0.0625, 0.015625]))]
    [-2.0, -2.0, -2.0]
    """
    if len(axis) < 3 or not (np.isfinite(value).all() and (value > 0).all()):
        return math.nan, math.nan, math.nan
    fit = stats.linregress(np.log2(axis), np.log2(value))
    half = float(stats.t.ppf(0.975, len(axis) - 2)) * fit.stderr
    return float(fit.slope), float(fit.slope - half), float(fit.slope + half)


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean, median, 95 % interval of the mean over worlds and number of runs by point and method."""
    rows = []
    for key, group in runs.groupby([*POINT, "method"], sort=True):
        mean, half = interval(group.groupby("world")["excess"].mean())[:2]
        rows.append(
            {
                **dict(zip([*POINT, "method"], key, strict=True)),
                "mean": mean,
                "median": group["excess"].median(),
                "low": mean - half,
                "high": mean + half,
                "noiseless": group["excess_noiseless"].mean(),
                "moved": group["moved"].mean(),
                "runs": len(group),
            }
        )
    return pd.DataFrame(rows)


def cut_lines(points: pd.DataFrame, axis: str) -> list[pd.DataFrame]:
    """The points of one axis, cut into lines on which nothing else varies, each sorted along it."""
    chosen = points[points["axis"] == axis]
    return [line.sort_values(axis) for _, line in chosen.groupby([name for name in POINT if name != axis])]


def fit_exponents(means: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Measured slopes in n, ε, d and k beside the theory's.

    Returns:
        One row by axis, line and method: slope of the excess risk (``total``) and of its privacy part (``privacy``,
        the squared distance by which the noise moves the estimate), each with ends of its interval; the slope of the
        theory's sum and of its privacy term at the same points; and the privacy term's exponent.
    """
    rows = []
    for axis in ("n", "epsilon", "d", "k"):
        for line in cut_lines(points[np.isfinite(points["epsilon"])], axis):
            where = {name: line[name].iloc[0] for name in POINT if name != axis}
            for method, law in LAW.items():
                found = line.merge(means[means["method"] == method], on=POINT)
                x = found[axis].to_numpy(float)
                total, part = fit_slope(x, found["mean"].to_numpy()), fit_slope(x, found["moved"].to_numpy())
                rows.append(
                    {"axis": axis, **where, "method": method}
                    | {"octaves": math.log2(x.max() / x.min()), "values": len(x)}
                    | dict(zip(("total", "total_low", "total_high"), total, strict=True))
                    | {"theory_total": fit_slope(x, found[f"theory_{law}"].to_numpy())[0]}
                    | dict(zip(("privacy", "privacy_low", "privacy_high"), part, strict=True))
                    | {"theory_privacy": fit_slope(x, found[f"privacy_{law}"].to_numpy())[0]}
                    | {"exponent": EXPONENTS[law][axis]}
                )
    return pd.DataFrame(rows)


def find_crossing(x: NDArray[np.float64], gap: NDArray[np.float64]) -> float:
    """The first x at which ``gap`` changes its sign, between points by a straight line; NaN where it never does.

    >>> find_crossing(np.array([0.0, 10.0, 20.0]), np.array([-1.0, -0.5, 0.5]))
    15.0
    """
    change = np.flatnonzero(np.sign(gap[1:]) != np.sign(gap[:-1]))
    if not len(change):
        return math.nan
    i = int(change[0])
    return float(x[i] + (x[i + 1] - x[i]) * gap[i] / (gap[i] - gap[i + 1]))


def find_crossings(runs: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Where the hypernetwork stops beating tuned DP-SGD in all of R^d: in the angle and in the public tasks.

    Mean risks are compared, public tasks on a log2 scale. The interval is that of the crossings of the single worlds;
    there is none where a world never crosses, and ``no_crossing`` is the share of such worlds.
    """
    rows = []
    for axis in CROSSED_AXES:
        for line in cut_lines(points, axis):
            x = line[axis].to_numpy(float)
            scale = np.log2(x) if axis == "public_tasks" else x
            for method in CHALLENGERS:
                here = line[POINT].merge(runs[runs["method"].isin([method, RIVAL])], on=POINT)
                table = here.pivot_table(index="world", columns=[axis, "method"], values="excess")
                if method not in table.columns.get_level_values(1) or len(table.columns) < 2 * len(x):
                    continue
                gaps = table.xs(method, axis=1, level=1) - table.xs(RIVAL, axis=1, level=1)
                gap_wx = np.asarray(gaps[x], float)
                found = np.array([find_crossing(scale, gap_x) for gap_x in gap_wx])
                mean, half = interval(found)[:2]
                values = np.array([find_crossing(scale, gap_wx.mean(0)), mean - half, mean + half])
                if axis == "public_tasks":
                    values = 2**values
                rows.append(
                    {"axis": axis, **{name: line[name].iloc[0] for name in POINT if name != axis}, "method": method}
                    | dict(zip(("crossing", "low", "high"), values.tolist(), strict=True))
                    | {"no_crossing": float(np.isnan(found).mean()), "wins_at_start": bool(gap_wx.mean(0)[0] < 0)}
                )
    return pd.DataFrame(rows)


def compare_forms(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean risks of both forms at each point without misalignment, and the worlds' ratios: geometric mean, interval."""
    rows = []
    pair = runs[(runs["angle"] == 0) & runs["method"].isin(["hypernetwork", "hypernetwork_learned"])]
    for (n, epsilon, *_), group in pair.groupby(
        ["n", "epsilon", *(name for name in POINT if name not in ("n", "epsilon"))]
    ):
        worlds = group.pivot_table(index="world", columns="method", values="excess")
        if worlds.shape[1] == 2:
            mean, half = interval(np.log(worlds["hypernetwork_learned"] / worlds["hypernetwork"]))[:2]
            rows.append(
                {"n": n, "epsilon": epsilon, "analytic": worlds["hypernetwork"].mean()}
                | {"learned": worlds["hypernetwork_learned"].mean()}
                | {"ratio": math.exp(mean), "low": math.exp(mean - half), "high": math.exp(mean + half)}
            )
    return pd.DataFrame(rows)
