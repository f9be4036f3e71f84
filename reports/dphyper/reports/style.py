"""How methods and numbers are written and drawn: one name, colour and marker for each method, everywhere.

The colours are Okabe and Ito's and Tol's, safe for the common colour blindnesses; each has its own marker too. A number
never stands without what qualifies it: its interval, and in the name of its series how its hyper-parameters
were chosen and whether it is private at all.
"""

import math
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from dphyper.bench.catalog import METHODS
from dphyper.metrics.metric import METRICS
from dphyper.reports.aggregate import REAL, ROLES


class Look(NamedTuple):
    """Name in print, colour and matplotlib marker of a method."""

    label: str
    colour: str
    marker: str


SPARE = ("#44AA99", "#999933", "#AA4499", "#DDCC77")
SELECTIONS = {
    "fixed": "fixed",
    "tuned_public": "tuned on public tasks",
    "tuned_private": "tuned privately, charged",
    "non_private": "non-private",
    "unknown": "unknown",
}


REAL_LOOK = Look("Real versus real", "#A89F91", "X")


def look(method: str) -> Look:
    """The look of a method, as its class declares it; one that declares none has its name and a spare colour.

    >>> look("dp_sgd").label, look("my_method").label
    ('DP-SGD', 'my_method')
    """
    if method == REAL:
        return REAL_LOOK
    own = METHODS.card(method).own if method in METHODS else {}
    spare = SPARE[zlib.crc32(method.encode()) % len(SPARE)]
    return Look(own.get("label", method), own.get("colour", spare), own.get("marker", "h"))


def distance(metric: str, extractor: str) -> str:
    """The name of a metric: never plain FID on other features than Inception's."""
    return METRICS[metric].label_on(extractor)


def epsilon(value: float) -> str:
    """A budget in print.

    >>> epsilon(8.0), epsilon(0.5), epsilon(math.inf)
    ('8', '0.5', '∞')
    """
    return "∞" if math.isinf(value) else f"{value:g}"


def number(mean: float, half: float, digits: int) -> str:
    """Mean ± half width; an interval that one seed cannot give is shown as such.

    >>> number(-12.34, 0.56, 1), number(-0.04, math.nan, 1)
    ('−12.3 ± 0.6', '0.0 ± n/a')
    """
    return f"{mean:z.{digits}f} ± {'n/a' if math.isnan(half) else f'{half:.{digits}f}'}".replace("-", "−")


def digits(values: "pd.Series[float]") -> int:
    """Decimals that give a typical number three significant digits.

    >>> digits(pd.Series([48.2, 51.0])), digits(pd.Series([0.013, 0.02])), digits(pd.Series([0.0]))
    (1, 4, 1)
    """
    typical = values.abs().median()
    return max(0, 2 - math.floor(math.log10(typical))) if typical > 0 else 1


def name(point: Any) -> str:
    """The method of a point (any object with the attributes of `aggregate.SERIES`), with its k and its variant."""
    k = f"k = {point.embedding_dim}" if point.embedding_dim else ""
    return ", ".join(part for part in (look(point.method).label, k, point.variant) if part)


def qualifier(point: Any) -> str:
    """How the hyper-parameters of a point were chosen, and that it is not private where it is not."""
    if point.role == "reference":
        return "no model"
    chosen = SELECTIONS[point.selection]
    return chosen if point.private or point.selection == "non_private" else f"{chosen}, not private"


def records(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows as named tuples; Any, because a type checker cannot know the columns of a frame."""
    yield from frame.itertuples(index=False)


def named(points: pd.DataFrame) -> pd.DataFrame:
    """Add ``name``, ``qualifier`` and ``series`` (both together) and sort by role, method, k and ε."""
    order = {name: METHODS.card(name).own.get("order", math.inf) for name in METHODS}
    rank = points["method"].map(lambda method: order.get(method, math.inf))
    rows = [*records(points)]
    names, qualifiers = [name(row) for row in rows], [qualifier(row) for row in rows]
    series = [f"{first} ({second})" for first, second in zip(names, qualifiers, strict=True)]
    points = points.assign(name=names, qualifier=qualifiers, series=series)
    points = points.assign(_role=points["role"].map([*ROLES].index), _rank=rank, _open=~points["private"])
    columns = ["_role", "_rank", "method", "_open", "embedding_dim", "series", "epsilon"]
    return points.sort_values(columns, ignore_index=True).drop(columns=["_role", "_rank", "_open"])
