"""Figures, tables and a LaTeX table of the theory study, from its runs alone.

Every number comes from `dphyper.studies.theory.fits`, whose docstring says what the intervals are. No torch is
imported.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dphyper.reports.figures import FONT, TEXT_WIDTH
from dphyper.reports.style import Look
from dphyper.studies.theory.fits import (
    CHALLENGERS,
    CROSSED_AXES,
    POINT,
    compare_forms,
    cut_lines,
    find_crossings,
    fit_exponents,
    summarise,
)

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
AXES = {
    "n": "private records n",
    "epsilon": "ε",
    "d": "features d",
    "k": "subspace dimension k",
    "angle": "misalignment θ in degrees",
    "public_tasks": "public tasks",
}
PLAIN = [
    "hypernetwork",
    "dp_sgd_one_step",
    "dp_sgd_one_step_subspace",
    "dp_sgd_fixed",
    "dp_sgd_fixed_subspace",
    "dp_sgd",
    "dp_sgd_subspace",
]
"""What the figure of the rates shows: the methods whose laws the theory gives."""
DRAWN_INFINITY = 64.0  # where ε = ∞ stands on the axis, two octaves beyond the greatest finite one
RISK_LIMITS = 1e-3, 1e3  # of the vertical axis: beyond lie a few diverging runs


def _panel(ax: Axes, line: pd.DataFrame, means: pd.DataFrame, axis: str, methods: list[str]) -> None:
    """Measured means with intervals, and the theory's two sums, along one line of points."""
    x = line[axis].replace(math.inf, DRAWN_INFINITY)
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
                found[axis].replace(math.inf, DRAWN_INFINITY), found["mean"], [low.clip(lower=0), high.clip(lower=0)],
                color=style.colour, marker=style.marker, label=style.label, linewidth=0.9, elinewidth=0.6, markersize=3,
            )  # fmt: skip
    ax.axhline(1.0, color="#BBBBBB", linewidth=0.6, zorder=0)
    ax.set_yscale("log")
    if axis != "angle":
        ax.set_xscale("log", base=2)
        ax.set_xticks(x, [("∞" if math.isinf(value) else f"{value:g}") for value in line[axis]], rotation=45)
        ax.set_xticks([], minor=True)
    ax.set_xlabel(AXES[axis])
    words = {"d": "d", "k": "k", "n": "n", "epsilon": "ε"}
    ax.set_title(
        ", ".join(f"{word} = {line[name].iloc[0]:g}" for name, word in words.items() if name != axis), loc="left"
    )


def _mark_crossings(ax: Axes, axis: str, line: pd.DataFrame, marks: pd.DataFrame) -> None:
    """Where the hypernetwork stops beating DP-SGD on this line, with its interval."""
    here = marks[(marks["axis"] == axis) & (marks["method"] == "hypernetwork")]
    here = here[(here["n"] == line["n"].iloc[0]) & (here["epsilon"] == line["epsilon"].iloc[0])]
    for mark in here[np.isfinite(here["crossing"])].to_dict("records"):
        ax.axvline(mark["crossing"], color="#000000", linewidth=0.9, label="Crossing with DP-SGD")
        ax.axvspan(mark["low"], mark["high"], color="#000000", alpha=0.12, linewidth=0)


def _legend(figure: Figure, panels: Iterable[Axes]) -> None:
    """One legend for all panels, each label once."""
    shown: dict[str, Any] = {}
    for ax in panels:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    figure.legend([*shown.values()], [*shown], loc="outside lower center", ncols=3, fontsize=6)


def _figure(
    path: Path, panels: list[tuple[str, pd.DataFrame]], means: pd.DataFrame, methods: list[str],
    marks: pd.DataFrame | None = None,
) -> None:  # fmt: skip
    """Write PDF and PNG of some lines of points, two panels in a row."""
    with matplotlib.rc_context(FONT):
        rows = math.ceil(len(panels) / 2)
        figure = Figure(figsize=(TEXT_WIDTH, 2.2 * rows + 1.2), layout="constrained")
        grid = figure.subplots(rows, 2, squeeze=False).ravel()
        for ax, (axis, line) in zip(grid, panels, strict=False):
            _panel(ax, line, means, axis, methods)
            if marks is not None:
                _mark_crossings(ax, axis, line, marks)
            ax.set_ylim(bottom=max(ax.get_ylim()[0], RISK_LIMITS[0]), top=min(ax.get_ylim()[1], RISK_LIMITS[1]))
        for unused in grid[len(panels) :]:
            unused.remove()
        for ax in grid[: len(panels) : 2]:
            ax.set_ylabel("excess risk")
        _legend(figure, grid[: len(panels)])
        for kind in ("pdf", "png"):
            figure.savefig(path.with_suffix(f".{kind}"))


def _draw_figures(means: pd.DataFrame, points: pd.DataFrame, marks: pd.DataFrame, out: Path) -> None:
    rates = [(axis, line) for axis in ("n", "epsilon", "d", "k") for line in cut_lines(points, axis)]
    rivals = [panel for panel in rates if panel[0] in ("n", "epsilon")]
    crossed = [*CHALLENGERS, "dp_sgd", "dp_sgd_subspace", "public_mean"]
    for name, panels, methods, shown_marks in (
        ("rates", rates, PLAIN, None),
        ("rivals", rivals, [*LOOKS], None),
        *((axis, [(axis, line) for line in cut_lines(points, axis)], crossed, marks) for axis in CROSSED_AXES),
    ):
        if panels:
            _figure(out / name, panels, means, methods, shown_marks)


def latex_table(fits: pd.DataFrame) -> str:
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


def _markdown(runs: pd.DataFrame, fits: pd.DataFrame, marks: pd.DataFrame, ratios: pd.DataFrame) -> str:
    """The main tables as Markdown."""
    fits = fits.copy()
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
    return "\n\n".join([f"# Results of the theory sweep: {len(runs)} runs", *blocks, ""])


def write_report(runs: pd.DataFrame, points: pd.DataFrame, out: Path) -> str:
    """Write everything into ``out`` and return what a terminal should show.

    Args:
        runs: Rows of `dphyper.studies.theory.experiment.run`.
        points: One row by axis and point, with the columns of `dphyper.studies.theory.laws.predict_risks`.
        out: Folder: ``runs.parquet``, ``points.csv``, ``summary.csv``, ``exponents.csv``, ``crossings.csv``,
            ``learned.csv``, ``exponents.tex``, ``README.md`` with the main tables, and the figures ``rates``,
            ``rivals``, ``angle`` and ``public_tasks``, as far as there are points for them.
    """
    means = summarise(runs)
    fits, marks, ratios = fit_exponents(means, points), find_crossings(runs, points), compare_forms(runs)
    runs.to_parquet(out / "runs.parquet", index=False)
    tables = {"points": points, "summary": means, "exponents": fits, "crossings": marks, "learned": ratios}
    for name, frame in tables.items():
        frame.to_csv(out / f"{name}.csv", index=False, float_format="%.6g")
    (out / "exponents.tex").write_text(latex_table(fits))
    _draw_figures(means, points, marks, out)
    text = _markdown(runs, fits, marks, ratios)
    (out / "README.md").write_text(text)
    return text
