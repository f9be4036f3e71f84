"""Fits, figures and a LaTeX table of the theory sweep, from its runs alone.

Every number here is computed from the rows that `dphyper.studies.theory.experiment` wrote; no curve is fitted to look
like the theory, whose constants come from the sweep's own closed forms. Intervals are 95 %: of slopes from Student's t
on the residuals of the regression, of means and crossings from Student's t over worlds, since the data sets of a world
share its subspace, its public data and what was learned from them. A slope is of log mean excess risk on log2 of the
axis, so that a law with two terms shows a slope between theirs; the slope of the theory's own sum at the same points
stands beside it. No torch is imported.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from dphyper.reports.aggregate import interval
from dphyper.reports.figures import FONT, TEXT_WIDTH
from dphyper.reports.style import Look

LOOKS = {
    "hypernetwork": Look("Hypernetwork, analytic", "#0072B2", "o"),
    "hypernetwork_shrunk": Look("Hypernetwork, shrinking decoder", "#56B4E9", "v"),
    "hypernetwork_learned": Look("Hypernetwork, learned", "#332288", "h"),
    "dp_sgd": Look("DP-SGD", "#D55E00", "s"),
    "dp_sgd_subspace": Look("DP-SGD in the subspace", "#E69F00", "D"),
    "dp_sgd_fixed": Look("DP-SGD, not tuned", "#882255", "s"),
    "dp_sgd_fixed_subspace": Look("DP-SGD in the subspace, not tuned", "#CC79A7", "D"),
    "dp_sgd_one_step": Look("DP-SGD, one step", "#000000", "1"),
    "dp_sgd_one_step_subspace": Look("DP-SGD in the subspace, one step", "#6E6E6E", "2"),
    "adassp": Look("AdaSSP", "#44AA99", "p"),
    "adassp_subspace": Look("AdaSSP in the subspace", "#117733", "*"),
    "pdp_sgd": Look("PDP-SGD", "#999933", "<"),
    "gep": Look("GEP", "#DDCC77", ">"),
    "pda_dpmd": Look("PDA-DPMD", "#AA4499", "x"),
    "dope": Look("DOPE-SGD", "#661100", "+"),
    "public_mean": Look("Public mean", "#009E73", "^"),
    "least_squares": Look("Least squares, non-private", "#6E6E6E", "P"),
    "least_squares_subspace": Look("Least squares in the subspace, non-private", "#A89F91", "X"),
}
POINT = ["d", "k", "n", "epsilon", "angle", "public_tasks", "public_size"]
AXES = {
    "n": "private records n",
    "epsilon": "ε",
    "d": "features d",
    "k": "subspace dimension k",
    "angle": "misalignment θ in degrees",
    "public_tasks": "public tasks",
}
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


def slope(axis: NDArray[np.float64], value: NDArray[np.float64]) -> tuple[float, float, float]:
    """Exponent of a power law by regression in logarithms, with the ends of its 95 % interval.

    Args:
        axis: Positive abscissae.
        value: Values; NaN throughout where one is not positive or fewer than three are left.

    >>> [round(x, 3) for x in slope(np.array([1.0, 2.0, 4.0, 8.0]), np.array([1.0, 0.25, 0.0625, 0.015625]))]
    [-2.0, -2.0, -2.0]
    """
    if len(axis) < 3 or not (np.isfinite(value).all() and (value > 0).all()):
        return math.nan, math.nan, math.nan
    fit = stats.linregress(np.log2(axis), np.log2(value))
    half = float(stats.t.ppf(0.975, len(axis) - 2)) * fit.stderr
    return float(fit.slope), float(fit.slope - half), float(fit.slope + half)


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean, median, 95 % interval of the mean over worlds and number of runs by point and method."""
    rows = []
    for key, group in runs.groupby([*POINT, "method"], sort=True):
        mean, half, _ = interval(group.groupby("world")["excess"].mean())
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


def _lines(points: pd.DataFrame, axis: str) -> list[pd.DataFrame]:
    """The points of one axis, cut into lines on which nothing else varies, each sorted along it."""
    chosen = points[points["axis"] == axis]
    return [line.sort_values(axis) for _, line in chosen.groupby([name for name in POINT if name != axis])]


def exponents(means: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Measured slopes in n, ε, d and k beside the theory's.

    Returns:
        One row by axis, line and method: slope of the excess risk (``total``) and of its privacy part (``privacy``,
        the squared distance by which the noise moves the estimate), each with ends of its interval; the slope of the
        theory's sum and of its privacy term at the same points; and the privacy term's exponent.
    """
    rows = []
    for axis in ("n", "epsilon", "d", "k"):
        for line in _lines(points[np.isfinite(points["epsilon"])], axis):
            where = {name: line[name].iloc[0] for name in POINT if name != axis}
            for method, law in LAW.items():
                found = line.merge(means[means["method"] == method], on=POINT)
                x = found[axis].to_numpy(float)
                total, part = slope(x, found["mean"].to_numpy()), slope(x, found["moved"].to_numpy())
                rows.append(
                    {"axis": axis, **where, "method": method}
                    | {"octaves": math.log2(x.max() / x.min()), "values": len(x)}
                    | dict(zip(("total", "total_low", "total_high"), total, strict=True))
                    | {"theory_total": slope(x, found[f"theory_{law}"].to_numpy())[0]}
                    | dict(zip(("privacy", "privacy_low", "privacy_high"), part, strict=True))
                    | {"theory_privacy": slope(x, found[f"privacy_{law}"].to_numpy())[0]}
                    | {"exponent": EXPONENTS[law][axis]}
                )
    return pd.DataFrame(rows)


def crossing(x: NDArray[np.float64], gap: NDArray[np.float64]) -> float:
    """The first x at which ``gap`` changes its sign, between points by a straight line; NaN where it never does.

    >>> crossing(np.array([0.0, 10.0, 20.0]), np.array([-1.0, -0.5, 0.5]))
    15.0
    """
    change = np.flatnonzero(np.sign(gap[1:]) != np.sign(gap[:-1]))
    if not len(change):
        return math.nan
    i = int(change[0])
    return float(x[i] + (x[i + 1] - x[i]) * gap[i] / (gap[i] - gap[i + 1]))


def crossings(runs: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Where the hypernetwork stops beating tuned DP-SGD in all of R^d: in the angle and in the public tasks.

    Mean risks are compared, public tasks on a log2 scale. The interval is that of the crossings of the single worlds;
    there is none where a world never crosses, and ``no_crossing`` is the share of such worlds.
    """
    rows = []
    for axis in ("angle", "public_tasks"):
        for line in _lines(points, axis):
            x = line[axis].to_numpy(float)
            scale = np.log2(x) if axis == "public_tasks" else x
            for method in CHALLENGERS:
                here = line[POINT].merge(runs[runs["method"].isin([method, RIVAL])], on=POINT)
                table = here.pivot_table(index="world", columns=[axis, "method"], values="excess")
                if method not in table.columns.get_level_values(1) or len(table.columns) < 2 * len(x):
                    continue
                gaps = table.xs(method, axis=1, level=1) - table.xs(RIVAL, axis=1, level=1)
                gap_wx = np.asarray(gaps[x], float)
                found = np.array([crossing(scale, gap_x) for gap_x in gap_wx])
                mean, half, _ = interval(found)
                values = np.array([crossing(scale, gap_wx.mean(0)), mean - half, mean + half])
                if axis == "public_tasks":
                    values = 2**values
                rows.append(
                    {"axis": axis, **{name: line[name].iloc[0] for name in POINT if name != axis}, "method": method}
                    | dict(zip(("crossing", "low", "high"), values.tolist(), strict=True))
                    | {"no_crossing": float(np.isnan(found).mean()), "wins_at_start": bool(gap_wx.mean(0)[0] < 0)}
                )
    return pd.DataFrame(rows)


def learned_against_analytic(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean risks of both forms at each point without misalignment, and the worlds' ratios: geometric mean, interval."""
    rows = []
    pair = runs[(runs["angle"] == 0) & runs["method"].isin(["hypernetwork", "hypernetwork_learned"])]
    for (n, epsilon, *_), group in pair.groupby(
        ["n", "epsilon", *(name for name in POINT if name not in ("n", "epsilon"))]
    ):
        worlds = group.pivot_table(index="world", columns="method", values="excess")
        if worlds.shape[1] == 2:
            mean, half, _ = interval(np.log(worlds["hypernetwork_learned"] / worlds["hypernetwork"]))
            rows.append(
                {"n": n, "epsilon": epsilon, "analytic": worlds["hypernetwork"].mean()}
                | {"learned": worlds["hypernetwork_learned"].mean()}
                | {"ratio": math.exp(mean), "low": math.exp(mean - half), "high": math.exp(mean + half)}
            )
    return pd.DataFrame(rows)


def _panel(ax: Axes, line: pd.DataFrame, means: pd.DataFrame, axis: str, methods: list[str]) -> None:
    """Measured means with intervals, and the theory's two sums, along one line of points."""
    x = line[axis].replace(math.inf, 64.0)
    logarithmic = axis != "angle"
    for column, label, method in (
        ("theory_subspace", "Theory, one release in k dimensions", "hypernetwork"),
        ("theory_ambient", "Theory, one release in d dimensions", "dp_sgd"),
    ):
        ax.plot(x, line[column], color=LOOKS[method].colour, linestyle="--", linewidth=2.4, alpha=0.35, label=label)
    for method in methods:
        style = LOOKS[method]
        found = line[POINT].merge(means[means["method"] == method], on=POINT)
        if len(found):
            low, high = found["mean"] - found["low"], found["high"] - found["mean"]
            ax.errorbar(
                found[axis].replace(math.inf, 64.0), found["mean"], [low.clip(lower=0), high.clip(lower=0)],
                color=style.colour, marker=style.marker, label=style.label, linewidth=0.9, elinewidth=0.6, markersize=3,
            )  # fmt: skip
    ax.axhline(1.0, color="#BBBBBB", linewidth=0.6, zorder=0)
    ax.set_yscale("log")
    if logarithmic:
        ax.set_xscale("log", base=2)
        ax.set_xticks(x, [("∞" if math.isinf(value) else f"{value:g}") for value in line[axis]], rotation=45)
        ax.set_xticks([], minor=True)
    ax.set_xlabel(AXES[axis])
    words = {"d": "d", "k": "k", "n": "n", "epsilon": "ε"}
    ax.set_title(
        ", ".join(f"{word} = {line[name].iloc[0]:g}" for name, word in words.items() if name != axis), loc="left"
    )


def _figure(
    path: Path, panels: list[tuple[str, pd.DataFrame]], means: pd.DataFrame, methods: list[str],
    marks: pd.DataFrame | None = None,
) -> None:  # fmt: skip
    with matplotlib.rc_context(FONT):
        lines = math.ceil(len(panels) / 2)
        figure = Figure(figsize=(TEXT_WIDTH, 2.2 * lines + 1.2), layout="constrained")
        grid = figure.subplots(lines, 2, squeeze=False).ravel()
        for ax, (axis, line) in zip(grid, panels, strict=False):
            _panel(ax, line, means, axis, methods)
            if marks is not None:
                here = marks[(marks["axis"] == axis) & (marks["method"] == "hypernetwork")]
                here = here[(here["n"] == line["n"].iloc[0]) & (here["epsilon"] == line["epsilon"].iloc[0])]
                for mark in here[np.isfinite(here["crossing"])].to_dict("records"):
                    ax.axvline(mark["crossing"], color="#000000", linewidth=0.9, label="Crossing with DP-SGD")
                    ax.axvspan(mark["low"], mark["high"], color="#000000", alpha=0.12, linewidth=0)
            ax.set_ylim(bottom=max(ax.get_ylim()[0], 1e-3), top=min(ax.get_ylim()[1], 1e3))
        for unused in grid[len(panels) :]:
            unused.remove()
        for ax in grid[: len(panels) : 2]:
            ax.set_ylabel("excess risk")
        handles, labels = [], []
        for ax in grid[: len(panels)]:
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                if label not in labels:
                    handles.append(handle)
                    labels.append(label)
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=6)
        for kind in ("pdf", "png"):
            figure.savefig(path.with_suffix(f".{kind}"))


def latex(fits: pd.DataFrame) -> str:
    """The exponents as a LaTeX table (booktabs), one line by axis, line and method."""
    names = {"n": "$n$", "epsilon": r"$\varepsilon$", "d": "$d$", "k": "$k$"}

    def ends(row: Mapping[Any, Any], name: str) -> str:
        if math.isnan(row[name]):
            return "--"
        return f"${row[name]:.2f}\\ [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]$"

    lines = [
        r"\begin{tabular}{lllrrrrr}",
        r"\toprule",
        r"Axis & Fixed & Method & Risk & Theory & Privacy part & Theory & Exponent \\",
        r"\midrule",
    ]
    for row in fits.to_dict("records"):
        fixed = ", ".join(f"{names[a]}$={row[a]:g}$" for a in ("n", "epsilon") if a != row["axis"])
        cells = [names[row["axis"]], fixed, LOOKS[row["method"]].label, ends(row, "total")]
        cells += [f"${row['theory_total']:.2f}$", ends(row, "privacy"), f"${row['theory_privacy']:.2f}$"]
        lines.append(" & ".join([*cells, f"${row['exponent']}$"]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def report(runs: pd.DataFrame, points: pd.DataFrame, out: Path) -> str:
    """Write everything into ``out`` and return what a terminal should show.

    Args:
        runs: Rows of `dphyper.studies.theory.experiment.run`.
        points: One row by axis and point, with the columns of `dphyper.studies.theory.experiment.curves`.
        out: Folder: ``runs.parquet``, ``points.csv``, ``summary.csv``, ``exponents.csv``, ``crossings.csv``,
            ``learned.csv``, ``exponents.tex``, ``README.md`` with the main tables, and the figures ``rates``,
            ``rivals``, ``angle`` and ``public_tasks``.
    """
    means = summary(runs)
    fits, marks, ratios = exponents(means, points), crossings(runs, points), learned_against_analytic(runs)
    runs.to_parquet(out / "runs.parquet", index=False)
    for name, frame in (
        ("points", points),
        ("summary", means),
        ("exponents", fits),
        ("crossings", marks),
        ("learned", ratios),
    ):
        frame.to_csv(out / f"{name}.csv", index=False, float_format="%.6g")
    (out / "exponents.tex").write_text(latex(fits))
    rates = [(axis, line) for axis in ("n", "epsilon", "d", "k") for line in _lines(points, axis)]
    plain = [
        "hypernetwork",
        "dp_sgd_one_step",
        "dp_sgd_one_step_subspace",
        "dp_sgd_fixed",
        "dp_sgd_fixed_subspace",
        "dp_sgd",
        "dp_sgd_subspace",
    ]
    _figure(out / "rates", rates, means, plain)
    _figure(out / "rivals", [panel for panel in rates if panel[0] in ("n", "epsilon")], means, [*LOOKS])
    for axis in ("angle", "public_tasks"):
        panels = [(axis, line) for line in _lines(points, axis)]
        if panels:
            _figure(out / axis, panels, means, [*CHALLENGERS, "dp_sgd", "dp_sgd_subspace", "public_mean"], marks)
    for name in ("total", "privacy"):
        ends = zip(fits[name], fits[f"{name}_low"], fits[f"{name}_high"], strict=True)
        fits[name] = [f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in ends]
    shown = ["axis", "n", "epsilon", "method", "total", "theory_total", "privacy", "theory_privacy", "exponent"]
    parts = {
        "Exponents of the excess risk and of its privacy part": fits[shown].round(2),
        "Where the hypernetwork stops beating tuned DP-SGD in all of R^d": marks.drop(
            columns=["d", "k", "public_size"], errors="ignore"
        ).round(3),
        "Learned over analytic form without misalignment": ratios.round(3),
    }
    blocks = [f"## {title}\n\n```\n{frame.to_string(index=False)}\n```" for title, frame in parts.items()]
    text = "\n\n".join([f"# Results of the theory sweep: {len(runs)} runs", *blocks, ""])
    (out / "README.md").write_text(text)
    return text
