"""The interactive distance-against-ε chart of the page: plotly traces as plain data, one set for each task.

The numbers are those of the figures and tables (`aggregate`). Plotly's own Python classes are not needed, for the
page draws with the plotly.js that it carries.
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from dphyper.reports.aggregate import METRICS, Section, aggregate
from dphyper.reports.style import digits, distance, epsilon, look, named, number, records
from dphyper.reports.tables import marked

SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "P": "cross", "D": "diamond"}
DASHES = {"control": "dashdot", "floor": "dot", "ceiling": "dash", "reference": "solid"}


def chart(section: Section) -> dict[str, Any]:
    """Axis ticks, names of the metrics, and the choices: a title with its traces for each metric."""
    points = named(aggregate(section.values))
    finite = [value for value in section.epsilons if math.isfinite(value)] or [1.0]
    place = {value: value if math.isfinite(value) else 2.2 * finite[-1] for value in section.epsilons}
    ends = (finite[0] / 1.25, 1.25 * max(place.values()))
    choices = []
    for split in ("private", "tuning"):
        for task in section.shown(split):
            own = points[(points["split"] == split) & (points["task"] == task)]
            traces = {metric: _traces(own[own["metric"] == metric], place, ends) for metric in METRICS}
            title = section.title(split, task)
            choices.append({"title": title if split in title else f"{title} ({split})", "traces": traces})
    return {
        "ticks": [*place.values()],
        "labels": [epsilon(value) for value in place],
        "range": [math.log10(end) for end in ends],
        "metrics": {metric: distance(metric, section.extractor) for metric in METRICS},
        "choices": choices,
    }


def _traces(points: pd.DataFrame, place: dict[float, float], ends: tuple[float, float]) -> list[dict[str, Any]]:
    constant = (points["role"] != "method") & np.isinf(points["epsilon"])
    decimals = digits(points["mean"])
    traces: list[dict[str, Any]] = []
    for series, curve in points[~constant].groupby("series", sort=False):
        style = look(curve["method"].iloc[0])
        for part in (curve[np.isfinite(curve["epsilon"])], curve[np.isinf(curve["epsilon"])]):
            traces.append(
                {
                    "name": series, "legendgroup": series, "mode": "lines+markers", "showlegend": len(traces) % 2 == 0,
                    "x": [place[value] for value in part["epsilon"]], "y": [*part["mean"]],
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
                "line": {"color": colour, "width": 1.5, "dash": DASHES[line.role]},
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
    budget = "no ε" if point.role != "method" else f"ε = {epsilon(point.epsilon)}"
    value = marked(number(point.mean, point.half, decimals), point.doubted)
    return f"{point.series}<br>{budget}: {value}<br>seeds: {point.seeds}"
