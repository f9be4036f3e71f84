"""How methods and numbers are written and drawn: one name, colour and marker for each method, everywhere.

A method's class declares its look. What qualifies a number always stands beside it: its interval, and in the name of
its series how the hyper-parameters were chosen and whether it is private at all.
"""

import math
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd

from dphyper.bench.catalog import METHODS
from dphyper.core.labels import SELECTION_LABELS
from dphyper.core.specs import content_hash
from dphyper.metrics.metric import HEADLINE, METRICS
from dphyper.reports.sections import DOUBT, REAL, ROLES, Section

_LONGEST_NAME = 100  # characters of a file name; file systems take 255 bytes, and something is put before and behind


class Look(NamedTuple):
    """Name in print, colour and matplotlib marker of a method."""

    label: str
    colour: str
    marker: str


REAL_LOOK = Look("Real versus real", "#A89F91", "X")
SPARE_COLOURS = ("#44AA99", "#999933", "#AA4499", "#DDCC77")  # of Tol's muted scheme, safe for colour blindness
LINE_STYLES = {"control": "-.", "floor": ":", "ceiling": "--", "reference": "-"}
"""Matplotlib's line style of the series that know no ε, by role."""
AT_INFINITY = 2.2  # where ε = ∞ stands on a logarithmic axis, in units of the greatest finite ε


def look(method: str) -> Look:
    """The look of a method, as its class declares it; without a declaration, its name and a spare colour.

    >>> look("dp_sgd").label, look("my_method").label
    ('DP-SGD', 'my_method')
    """
    if method == REAL:
        return REAL_LOOK
    own = METHODS.card(method).own if method in METHODS else {}
    spare = SPARE_COLOURS[zlib.crc32(method.encode()) % len(SPARE_COLOURS)]
    return Look(own.get("label", method), own.get("colour", spare), own.get("marker", "h"))


def epsilon(value: float) -> str:
    """A budget in print.

    >>> epsilon(8.0), epsilon(0.5), epsilon(math.inf)
    ('8', '0.5', '∞')
    """
    return "∞" if math.isinf(value) else f"{value:g}"


def budget(value: float) -> str:
    """A budget in print, with its symbol.

    >>> budget(8.0)
    'ε = 8'
    """
    return f"ε = {epsilon(value)}"


def epsilon_places(section: Section) -> dict[float, float]:
    """Where each budget of a section stands on the axis: at its value, and ∞ right of all others."""
    finite = [value for value in section.epsilons if math.isfinite(value)] or [1.0]
    return {value: value if math.isfinite(value) else AT_INFINITY * finite[-1] for value in section.epsilons}


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


class NumberFormat(NamedTuple):
    """How tables print the numbers of one metric: in units of ``scale``, with so many ``digits`` after the point.

    >>> NumberFormat(scale=1e-4, digits=0).interval(0.0123, 0.0004)
    '123 ± 4'
    """

    scale: float
    digits: int

    def value(self, value: float) -> str:
        """A number alone."""
        return f"{value / self.scale:.{self.digits}f}"

    def interval(self, mean: float, half: float) -> str:
        """As `number`."""
        return number(mean / self.scale, half / self.scale, self.digits)


def number_format(section: Section, metric: str = HEADLINE) -> NumberFormat:
    """The format of a metric in a section: a typical number has three significant digits."""
    scale = METRICS[metric].scale
    return NumberFormat(scale, digits(section.values.loc[section.values["metric"] == metric, "value"] / scale))


def file_name(title: str) -> str:
    """A task or collection as the name of a file: different titles have different names, whatever is in them.

    >>> file_name("mail/e-mail 1.10"), len(file_name("ключ" * 60)) < 130
    ('mail%2Fe-mail 1.10', True)
    """
    quoted = quote(title, safe=" ")
    return quoted if len(quoted) <= _LONGEST_NAME else f"{quoted[:_LONGEST_NAME]}-{content_hash(title)}"


def mark(text: str, doubted: bool) -> str:
    """A number in print, marked where rows that support no claim are behind it.

    >>> mark("12.3 ± 0.4", True), mark("12.3 ± 0.4", False)
    ('12.3 ± 0.4‡', '12.3 ± 0.4')
    """
    return text + DOUBT * bool(doubted)


def count_range(values: "pd.Series[Any]") -> str:
    """The range of a column of counts, or "?" where nothing is known.

    >>> count_range(pd.Series([3, 3])), count_range(pd.Series([2, 3])), count_range(pd.Series([math.nan]))
    ('3', '2–3', '?')
    """
    known = sorted(values.dropna().astype(int).unique())
    return "–".join(str(value) for value in dict.fromkeys([known[0], known[-1]])) if known else "?"


def seed_counts(points: pd.DataFrame, series: list[str]) -> "pd.Series[str]":
    """Draws behind the points of each series, for each of them; after the trainings, where there are several.

    >>> counts = {"method": ["a", "a", "b"], "trainings": [3, 3, 1], "seeds": [2, 3, 5]}
    >>> seed_counts(pd.DataFrame(counts), ["method"]).to_list()
    ['3 × 2–3', '3 × 2–3', '5']
    """
    draws, trainings = (points.groupby(series)[column].transform(count_range) for column in ("seeds", "trainings"))
    return draws.where(trainings == "1", trainings + " × " + draws)


def name(point: Any) -> str:
    """The method of a point (an object with the attributes of `sections.SERIES`), with its k and its variant."""
    k = f"k = {point.embedding_dim}" if point.embedding_dim else ""
    return ", ".join(part for part in (look(point.method).label, k, point.variant) if part)


def qualifier(point: Any) -> str:
    """How the hyper-parameters of a point were chosen, and that it is not private where it is not."""
    if point.role == "reference":
        return "no model"
    chosen = SELECTION_LABELS[point.selection]
    return chosen if point.private or point.selection == "non_private" else f"{chosen}, not private"


def records(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows as named tuples; Any, because a type checker cannot know the columns of a frame."""
    yield from frame.itertuples(index=False)


def add_names(points: pd.DataFrame) -> pd.DataFrame:
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
