"""What each method gains over the public model, or loses, by every metric that tables show.

A method that does worse than the public model does harm: it spent privacy for nothing.
"""

import pandas as pd

from dphyper.metrics.metric import METRICS
from dphyper.reports.aggregate import paired_difference
from dphyper.reports.differences import BETTER, WORSE, verdict_on
from dphyper.reports.measures import in_units, metric_label, metric_title, tabled_metrics
from dphyper.reports.sections import MEANS, POINT, Section
from dphyper.reports.style import number_format, records
from dphyper.reports.table import ReportTable, Table
from dphyper.reports.tables.by_metric import iterate_places, methods_by_metric

PUBLIC_MODEL = "public_only"


class Gains(ReportTable):
    """`gains` with methods as rows and ε as columns."""

    title = "Each method minus public only: where one does harm"
    label = "gains"
    order = 60

    @classmethod
    def make(cls, section: Section, split: str) -> Table | None:
        """As `ReportTable.make`."""
        gained = gains(section)
        if gained.empty:
            return None
        metrics = tabled_metrics(gained["metric"].unique())
        forms = {metric: number_format(section, metric) for metric in metrics}
        cells = [forms[row.metric].interval(row.difference, row.half) for row in records(gained)]
        rising = [metric_label(metric, section.extractor) for metric in metrics if METRICS[metric].higher_is_better]
        reverse = f" (in {', '.join(rising)} above 0)" if rising else ""
        units = "".join(
            f" {metric_title(metric, section.extractor)}{unit}." for metric in metrics if (unit := in_units(metric))
        )
        caption = (
            "Methods minus public only, paired by training and draw: mean ± half of the 95% Student-t interval; below "
            f"0 the method is better than the public model{reverse}, n/a: one seed, no interval.{units} Better and "
            f"worse: the interval excludes 0, with no correction for many comparisons.{_tally(section, gained)}"
        )
        return methods_by_metric(section, gained, cells, caption)


def gains(section: Section) -> pd.DataFrame:
    """Every method minus the public model, paired by training and draw.

    Returns:
        One row for each metric and point that both have a value of. Columns: ``metric``, those of `POINT`,
        ``difference``, ``half``, ``seeds``, ``trainings``, ``p``, ``verdict`` and ``doubted`` (of the method or the
        public model).
    """
    rows = []
    for place in iterate_places(section):
        public = place[place["method"] == PUBLIC_MODEL]
        others = place[(place["method"] != PUBLIC_MODEL) & (place["role"] != "reference")]
        for key, points in others.groupby(["metric", *POINT]):
            gap = paired_difference(points, public)
            if gap.seeds:
                doubted = bool(points["doubted"].any() or public["doubted"].any())
                rows.append((*key, *gap, verdict_on(gap, key[0]), doubted))
    names = ["difference", "half", "seeds", "trainings", "p", "verdict", "doubted"]
    return pd.DataFrame(rows, columns=["metric", *POINT, *names])


def _tally(section: Section, gained: pd.DataFrame) -> str:
    """How often a private method was better or worse on a private task, for each metric; empty without an interval."""
    own = gained[gained["private"] & (gained["role"] == "method") & gained["half"].notna()]
    own = own[(own["split"] == "private") & ~own["task"].isin(MEANS)]
    told = []
    for metric in tabled_metrics(own["metric"].unique()):
        verdicts = own.loc[own["metric"] == metric, "verdict"]
        better, worse = (verdicts == BETTER).sum(), (verdicts == WORSE).sum()
        label = metric_label(metric, section.extractor)
        told.append(f"{len(verdicts)} in {label}, {better} of them better and {worse} worse")
    return f" Differences of private methods on private tasks with an interval: {'; '.join(told)}." if told else ""
