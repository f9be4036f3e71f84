"""Which share of the gap between public data and no privacy a method closes, by every metric that tables show.

The share is (z − m) / (z − c): m is the method, c the non-private LoRA, and z the better of what uses no private record
(the public model or the public mean, by their means). 1 is as good as no privacy, 0 as good as no private record, below
0 worse. Differences are paired by training and draw and have their 95% Student-t interval. The gap below the line is
the mean over the same trainings and draws, taken as known, so that one of them with a small gap does not decide.

Where c is not better than z there is no gap and no number. Of several tasks the share is that of their mean values, not
the mean of their shares.
"""

from functools import lru_cache

import pandas as pd

from dphyper.reports.aggregate import beside, best_series, crossed
from dphyper.reports.measures import direction
from dphyper.reports.sections import POINT, Section
from dphyper.reports.style import number, records
from dphyper.reports.table import ReportTable, Table
from dphyper.reports.tables.by_metric import iterate_places, methods_by_metric

WITHOUT_PRIVATE_RECORDS = ("public_only", "public_mean")
WITHOUT_PRIVACY = "nonprivate_lora"


class GapClosed(ReportTable):
    """`gap_closed` with methods as rows and ε as columns."""

    title = "Share of the gap between public data and no privacy that is closed"
    label = "gap"
    order = 70

    @classmethod
    def make(cls, section: Section, split: str) -> Table | None:
        """As `ReportTable.make`."""
        closed = gap_closed(section)
        if closed.empty:
            return None
        return methods_by_metric(
            section,
            closed,
            [number(row.closed, row.half, 2) for row in records(closed)],
            "Share of the gap that a method closes: (z − method) / (z − non-private LoRA), z the better of public only "
            "and public mean; 1 is as good as no privacy, 0 as good as no private record. Mean ± half of the 95% "
            "Student-t interval of the numerator, paired by training and draw, over the mean gap; n/a: one seed, no "
            "interval. Tasks where the non-private LoRA is not better than z have no gap and no row; in a mean of "
            "tasks those with the widest gaps weigh most.",
        )


@lru_cache(maxsize=1)  # two tables ask for it, one of them for each split; they change no frame
def gap_closed(section: Section) -> pd.DataFrame:
    """The share of each method.

    Returns:
        One row for each metric and point that has a gap. Columns: ``metric``, those of `POINT`, ``closed``, ``half``
        (NaN for one seed), ``seeds`` and ``trainings`` (that z, c and the method all have), ``zero`` (which method z
        is), ``gap`` (by how much c is better than z on these) and ``doubted`` (of z or the method).
    """
    rows = []
    for place in iterate_places(section):
        zero = best_series(place[place["method"].isin(WITHOUT_PRIVATE_RECORDS)])
        ceiling = best_series(place[place["method"] == WITHOUT_PRIVACY])
        ends = [*WITHOUT_PRIVATE_RECORDS, WITHOUT_PRIVACY]
        others = place[~place["method"].isin(ends) & (place["role"] != "reference")]
        for key, points in others.groupby(["metric", *POINT]):
            pairs, (none, most, own) = beside(zero, ceiling, points)
            gain = crossed(pairs, none - own)
            gap = -direction(key[0]).sign * crossed(pairs, none - most).mean
            if gap > 0:  # it is NaN where one of the three was not run
                doubted = bool(points["doubted"].any() or zero["doubted"].any())
                share = -direction(key[0]).sign * gain.mean / gap
                rows.append(
                    (*key, share, gain.half / gap, gain.seeds, gain.trainings, zero["method"].iloc[0], gap, doubted)
                )
    names = ["closed", "half", "seeds", "trainings", "zero", "gap", "doubted"]
    return pd.DataFrame(rows, columns=["metric", *POINT, *names])
