"""Figures of a paper, as PDF and PNG: the headline metric against ε and against k, k against ε, sheets of samples.

Error bars and bands are the 95% intervals of `aggregate`. A bar longer than the spread of the means runs out of the
frame, and so does a mean far worse than all others, whose number then stands at the edge: neither may flatten every
curve. Fonts are embedded as TrueType (type 42).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from dphyper.metrics.metric import HEADLINE
from dphyper.reports.aggregate import aggregate
from dphyper.reports.measures import Direction, direction, metric_title
from dphyper.reports.samples import Strip
from dphyper.reports.sections import Section
from dphyper.reports.style import LINE_STYLES, add_names, budget, digits, epsilon, epsilon_places, look, records

TEXT_WIDTH, COLUMN_WIDTH = 6.75, 3.25  # inches, of a two-column paper
CURVES = 7  # in one panel; more can hardly be told apart at this size
BARS: dict[str, Any] = {"elinewidth": 0.8, "capsize": 1.8, "capthick": 0.8}
FONT: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
}


@contextmanager
def _canvas(path: Path, panels: int, entries: int = 8) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of so many panels that is saved as ``path``.pdf and ``path``.png on leaving.

    ``entries`` is how many lines of a legend in two columns there is room for below the panels.
    """
    with matplotlib.rc_context(FONT):
        columns = min(panels, 3)
        lines = math.ceil(panels / columns)
        width = COLUMN_WIDTH if panels == 1 else TEXT_WIDTH
        figure = Figure(figsize=(width, 1.95 * lines + 0.15 + 0.15 * math.ceil(entries / 2)), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for unused in axes[panels:]:
            unused.remove()
        yield figure, [*axes[:panels]]
        for kind in ("pdf", "png"):
            figure.savefig(path.with_suffix(f".{kind}"))


def _legend(figure: Figure, axes: list[Axes]) -> None:
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    # matplotlib lists bare lines first, but the methods are what a reader looks for.
    handles = dict(sorted(handles.items(), key=lambda item: isinstance(item[1], Line2D)))
    figure.legend([*handles.values()], [*handles], loc="outside lower center", ncols=1 if len(axes) == 1 else 2)


def _frame_means(ax: Axes, points: pd.DataFrame, towards: Direction) -> pd.DataFrame:
    """Set limits that show the means, and of each interval at most as much again as the means spread.

    The mean of a private method that is worse than Tukey's outer fence of all means (three times their interquartile
    range beyond the quartile) would flatten every other curve and is left out.

    Returns:
        The points beyond the limits on the bad side.
    """
    badness = -towards.sign * points["mean"]
    lower, upper = badness.quantile([0.25, 0.75])
    fence = max(upper + 3 * (upper - lower), badness[points["role"] != "method"].max())
    framed = points[~(badness > fence)]
    spread = float(np.ptp(framed["mean"])) or float(framed["half"].max()) or 1.0
    reach = framed["half"].fillna(0).clip(upper=spread)
    low, high = (framed["mean"] - reach).min(), (framed["mean"] + reach).max()
    margin = 0.06 * ((high - low) or 1.0)
    low, high = low - margin, high + margin
    ax.set_ylim(low, high)
    outside: pd.DataFrame = points[points["mean"] > high if towards.sign < 0 else points["mean"] < low]
    return outside


def distance_vs_epsilon(section: Section, split: str, path: Path) -> bool:
    """Panels for each task of a split and for their mean; False, and no file, when it has no row.

    More than `CURVES` curves are dealt to several panels of one task, which share their frame and repeat the series
    that know no ε.
    """
    points = add_names(aggregate(section.values))
    points = points[(points["metric"] == HEADLINE) & (points["split"] == split)].copy()
    points["constant"] = (points["role"] != "method") & np.isinf(points["epsilon"])
    series = [*dict.fromkeys(points.loc[~points["constant"], "series"])]
    parts = np.array_split(np.asarray(series, object), max(math.ceil(len(series) / CURVES), 1))
    tasks = section.tasks_with_mean(split)
    if not tasks:
        return False
    panels = [(task, part) for task in tasks for part in parts]
    places = epsilon_places(section)
    with _canvas(path, len(panels), points["series"].nunique() + 1) as (figure, axes):
        for number, (ax, (task, part)) in enumerate(zip(axes, panels, strict=True)):
            shown = points[points["task"] == task]
            _draw_curves(ax, shown[~shown["constant"] & shown["series"].isin(part)], places)
            _draw_constants(ax, shown[shown["constant"]])
            ax.set_xscale("log")
            ax.set_xticks([], minor=True)
            ax.set_xticks([*places.values()])
            ax.set_xticklabels([epsilon(value) for value in places])
            ax.set_xlabel("ε")
            count = f" ({number % len(parts) + 1} of {len(parts)})" if len(parts) > 1 else ""
            ax.set_title(section.title(split, task) + count, loc="left", parse_math=False)
            outside = _frame_means(ax, shown, direction(HEADLINE))
            _note_means_outside(ax, outside[outside["series"].isin(part)], places)
        for ax in axes[::3]:
            ax.set_ylabel(metric_title(HEADLINE, section.extractor))
        _legend(figure, axes)
    return True


def _draw_curves(ax: Axes, points: pd.DataFrame, places: dict[float, float]) -> None:
    """One curve for each series over its finite ε, and a marker at ∞; neighbours are moved a little apart."""
    curves = [*points.groupby("series", sort=False)]
    for position, (name, curve) in enumerate(curves):
        style = look(curve["method"].iloc[0])
        shift = 1.03 ** (position - (len(curves) - 1) / 2)
        known = np.isfinite(curve["epsilon"])
        for values, line in ((curve[known], "-"), (curve[~known], "none")):
            ax.errorbar(
                shift * values["epsilon"].replace(places), values["mean"], values["half"],
                color=style.colour, marker=style.marker, linestyle=line, label=name, zorder=3, **BARS,
            )  # fmt: skip


def _draw_constants(ax: Axes, points: pd.DataFrame) -> None:
    """A horizontal line, and its interval as a band, for each series that knows no ε."""
    for line in records(points):
        colour = look(line.method).colour
        ax.axhline(line.mean, color=colour, linestyle=LINE_STYLES[line.role], label=line.series, linewidth=1)
        if math.isfinite(line.half):
            ax.axhspan(line.low, line.high, color=colour, alpha=0.12, linewidth=0)


def _note_means_outside(ax: Axes, points: pd.DataFrame, places: dict[float, float]) -> None:
    """Write the means that lie beyond the frame at its edge."""
    _, top = ax.get_ylim()
    for point in records(points):
        above = point.mean > top
        ax.annotate(
            f"{point.mean:.{_digits_in_figures(points)}f} {'↑' if above else '↓'}",
            (places[point.epsilon], 1.0 if above else 0.0), xycoords=ax.get_xaxis_transform(),
            color=look(point.method).colour, ha="right", va="bottom", fontsize=6,
        )  # fmt: skip


def _digits_in_figures(points: pd.DataFrame) -> int:
    """Decimals of a number inside a figure: one digit less than in tables, for there is little room."""
    return max(digits(points["mean"]) - 1, 0)


def distance_vs_embedding_dim(section: Section, path: Path) -> bool:
    """One line for each embedding method and ε; False, and no file, when no method ran with several k."""
    points = add_names(aggregate(section.every_k))
    points = points[(points["metric"] == HEADLINE) & (points["split"] == "private") & (points["embedding_dim"] > 0)]
    several = points.groupby("method")["embedding_dim"].transform("nunique") > 1
    points = points[several]
    tasks = [task for task in section.tasks_with_mean("private") if task in {*points["task"]}]
    if points.empty:
        return False
    budgets = sorted(points.loc[points["role"] == "method", "epsilon"].unique())
    shades = dict(zip(budgets, matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(budgets))), strict=True))
    with _canvas(path, len(tasks)) as (figure, axes):
        for ax, task in zip(axes, tasks, strict=True):
            shown = points[points["task"] == task]
            for _, line in shown.groupby(["method", "epsilon"], sort=False):
                first = next(records(line))
                style, own = look(first.method), first.role == "method"
                ax.errorbar(
                    line["embedding_dim"], line["mean"], line["half"], marker=style.marker, **BARS,
                    color=shades[first.epsilon] if own else style.colour,
                    linestyle="-" if own else LINE_STYLES[first.role],
                    label=f"{style.label}, {budget(first.epsilon)}" if own else style.label,
                )  # fmt: skip
            ax.set_xscale("log", base=2)
            ax.set_xticks([], minor=True)
            ax.set_xticks(sorted(shown["embedding_dim"].unique()))
            ax.set_xticklabels(sorted(shown["embedding_dim"].unique()))
            ax.set_xlabel("embedding dimension k")
            ax.set_title(section.title("private", task), loc="left", parse_math=False)
            _frame_means(ax, shown, direction(HEADLINE))
        for ax in axes[::3]:
            ax.set_ylabel(metric_title(HEADLINE, section.extractor))
        _legend(figure, axes)
    return True


def _grid(points: pd.DataFrame) -> pd.DataFrame:
    """Means, k (rows) against ε (columns), of those variants of a method that ran with several k."""
    several = points.groupby("variant")["embedding_dim"].transform("nunique") > 1
    return points[several].pivot_table(index="embedding_dim", columns="epsilon", values="mean")


def embedding_dim_heat_map(section: Section, path: Path) -> bool:
    """k against ε: a map for each method and private task with several k at several ε; False, and no file, without one.

    The map of the mean needs every private task of the section at every k. A frame marks the best k of each ε, which
    private results show and never choose.
    """
    points = aggregate(section.every_k)
    points = points[(points["metric"] == HEADLINE) & (points["split"] == "private")]
    points = points[(points["role"] == "method") & (points["embedding_dim"] > 0)]
    grids = {
        (method, task): grid
        for method, own in points.groupby("method", sort=False)
        for task in section.tasks_with_mean("private")
        if min((grid := _grid(own[own["task"] == task])).shape) > 1
    }
    if not grids:
        return False
    several = len({method for method, _ in grids}) > 1
    with _canvas(path, len(grids)) as (figure, axes):
        for ax, ((method, task), grid) in zip(axes, grids.items(), strict=True):
            mesh = _draw_map(ax, grid.to_numpy(float), _digits_in_figures(points))
            ax.set_xticks(np.arange(grid.shape[1]) + 0.5, [epsilon(float(value)) for value in [*grid.columns]])
            ax.set_yticks(np.arange(grid.shape[0]) + 0.5, [str(k) for k in grid.index])
            ax.set_xlabel("ε")
            ax.set_title(
                f"{look(str(method)).label}, " * several + section.title("private", task), loc="left", parse_math=False
            )
            figure.colorbar(mesh, ax=ax, label=metric_title(HEADLINE, section.extractor))
        for ax in axes[::3]:
            ax.set_ylabel("embedding dimension k")
    return True


def _draw_map(ax: Axes, values: NDArray[np.floating[Any]], places: int) -> QuadMesh:
    """Numbers on colours, light where they are good, with a frame around the best of each column."""
    goodness = direction(HEADLINE).sign * values
    mesh = ax.pcolormesh(
        values, cmap="viridis_r" if direction(HEADLINE).sign < 0 else "viridis", edgecolors="white", linewidth=0.5
    )
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "black" if goodness[row, column] > np.nanmean(goodness) else "white"
            ax.text(column + 0.5, row + 0.5, f"{value:.{places}f}", ha="center", va="center", color=colour, fontsize=6)
    for column, best in enumerate(np.nan_to_num(goodness, nan=-math.inf).argmax(axis=0)):
        ax.add_patch(Rectangle((column, best), 1, 1, fill=False, edgecolor="#D55E00", linewidth=1.5))
    return mesh


def contact_sheet(strips: list[Strip], path: Path) -> None:
    """All samples of one task on one labelled sheet, a PNG."""
    columns = max(5, *(len(strip.samples) for strip in strips))
    high, wide = matplotlib.image.imread(strips[0].samples[0].path).shape[:2]
    with matplotlib.rc_context(FONT):
        height = TEXT_WIDTH / columns * high / wide + 0.5
        figure = Figure(figsize=(TEXT_WIDTH, len(strips) * height), layout="constrained")
        bands = figure.subfigures(len(strips), 1, squeeze=False).ravel()
        for band, strip in zip(bands, strips, strict=True):
            band.suptitle(strip.title, fontsize=8, x=0.01, ha="left", weight="bold")
            for ax, sample in zip(band.subplots(1, columns, squeeze=False).ravel(), strip.samples, strict=False):
                ax.imshow(matplotlib.image.imread(sample.path), cmap="gray", interpolation="nearest")
                ax.set_title(sample.caption.replace(" (", "\n("), fontsize=6)
            for ax in band.axes:
                ax.axis("off")
        figure.savefig(path)
