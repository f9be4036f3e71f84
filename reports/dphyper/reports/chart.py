"""The interactive chart of the page: every metric against ε, as plotly traces for each task.

The numbers are those of the figures and tables (`aggregate`). Traces are plain data, for the page draws them with the
plotly.js that it carries.
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from dphyper.reports.aggregate import aggregate
from dphyper.reports.measures import metric_title
from dphyper.reports.sections import Section
from dphyper.reports.style import (
    LINE_STYLES,
    add_names,
    budget,
    digits,
    epsilon,
    epsilon_places,
    look,
    mark,
    number,
    records,
)

# Plotly's words for matplotlib's markers and line styles.
SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "P": "cross", "D": "diamond"}
DASHES = {"-.": "dashdot", ":": "dot", "--": "dash", "-": "solid"}


def chart(section: Section) -> dict[str, Any]:
    """Axis ticks, names of the metrics, and the choices: a title with its traces for each metric."""
    points = add_names(aggregate(section.values))
    places = epsilon_places(section)
    ends = (min(places.values()) / 1.25, 1.25 * max(places.values()))
    choices = []
    for split in ("private", "tuning"):
        for task in section.tasks_with_mean(split):
            own = points[(points["split"] == split) & (points["task"] == task)]
            traces = {metric: _traces(own[own["metric"] == metric], places, ends) for metric in section.metrics}
            title = section.title(split, task)
            choices.append({"title": title if split in title else f"{title} ({split})", "traces": traces})
    return {
        "ticks": [*places.values()],
        "labels": [epsilon(value) for value in places],
        "range": [math.log10(end) for end in ends],
        "metrics": {metric: metric_title(metric, section.extractor) for metric in section.metrics},
        "choices": choices,
    }


def _traces(points: pd.DataFrame, places: dict[float, float], ends: tuple[float, float]) -> list[dict[str, Any]]:
    """Curves with their error bars, then lines with their bands, as in `figures.distance_vs_epsilon`."""
    constant = (points["role"] != "method") & np.isinf(points["epsilon"])
    decimals = digits(points["mean"])
    traces: list[dict[str, Any]] = []
    for series, curve in points[~constant].groupby("series", sort=False):
        style = look(curve["method"].iloc[0])
        for part in (curve[np.isfinite(curve["epsilon"])], curve[np.isinf(curve["epsilon"])]):
            traces.append(
                {
                    "name": series, "legendgroup": series, "mode": "lines+markers", "showlegend": len(traces) % 2 == 0,
                    "x": [*part["epsilon"].replace(places)], "y": [*part["mean"]],
                    "error_y": {"array": [*part["half"].fillna(0)], "thickness": 1.2, "width": 4},
                    "text": [_hover(point, decimals) for point in records(part)], "hoverinfo": "text",
                    "line": {"color": style.colour, "width": 2},
                    "marker": {"size": 8, "symbol": SYMBOLS.get(style.marker, "hexagon")},
                }
            )  # fmt: skip
    for line in records(points[constant]):
        colour = look(line.method).colour
        x = np.geomspace(*ends, 40).tolist()
        traces.append(
            {
                "name": line.series, "legendgroup": line.series, "mode": "lines", "x": x, "y": [line.mean] * len(x),
                "text": [_hover(line, decimals)] * len(x), "hoverinfo": "text",
                "line": {"color": colour, "width": 1.5, "dash": DASHES[LINE_STYLES[line.role]]},
            }
        )  # fmt: skip
        if math.isfinite(line.half):
            traces.append(
                {
                    "legendgroup": line.series, "showlegend": False, "hoverinfo": "skip", "mode": "lines",
                    "x": [*ends, *reversed(ends)], "y": [line.low] * 2 + [line.high] * 2, "fill": "toself",
                    "fillcolor": colour, "opacity": 0.12, "line": {"width": 0},
                }
            )  # fmt: skip
    return traces


def _hover(point: Any, decimals: int) -> str:
    where = "no ε" if point.role != "method" else budget(point.epsilon)
    value = mark(number(point.mean, point.half, decimals), point.doubted)
    count = point.seeds if point.trainings == 1 else f"{point.trainings} × {point.seeds}"
    return f"{point.series}<br>{where}: {value}<br>seeds: {count}"
