"""The layout that tables of several metrics share: tasks, metrics and methods as rows, ε as columns."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from dphyper.reports.aggregate import at_every_epsilon
from dphyper.reports.measures import metric_title, tabled_metrics
from dphyper.reports.sections import Section
from dphyper.reports.style import add_names, mark, records, seed_counts
from dphyper.reports.table import Table, against_epsilon, conditions, legend


def iterate_places(section: Section) -> Iterator[Any]:
    """The values of each place (metric, split, task and ε), by the metrics that such tables show.

    Series that know no ε have their value at every ε.
    """
    values = at_every_epsilon(section)
    values = values[values["metric"].isin(tabled_metrics(section.metrics))]
    return (place for _, place in values.groupby(["metric", "split", "task", "epsilon"]))


def methods_by_metric(section: Section, points: pd.DataFrame, cells: list[str], caption: str) -> Table:
    """Lay out one string for each of some points: rows with ``metric``, `POINT`, ``trainings``, ``seeds``, ``doubted``.

    The points themselves become the unrounded numbers of the table.
    """
    shown = [(split, task) for split in ("private", "tuning") for task in section.tasks_with_mean(split)]
    printed = points.assign(cell=[*map(mark, cells, points["doubted"])])
    # The mean of a single task is that task, and not shown again.
    printed = add_names(printed[[place in shown for place in zip(points["split"], points["task"], strict=True)]])
    printed["place"] = [shown.index((row.split, row.task)) for row in records(printed)]
    printed["rank"] = printed["metric"].map(tabled_metrics(section.metrics).index)
    printed = printed.sort_values(["place", "rank"], kind="stable")
    printed["Task"] = [section.title(row.split, row.task) for row in records(printed)]
    printed["Measure"] = [metric_title(metric, section.extractor) for metric in printed["metric"]]
    printed["Method"] = printed["series"]
    printed["Seeds"] = seed_counts(printed, ["place", "metric", "series"])
    wide = against_epsilon(printed, ["Task", "Measure", "Method", "Seeds"], "cell", section.epsilons).fillna("–")
    return Table(
        cells=wide.reset_index(level="Seeds"),
        caption=f"{caption}{legend(printed)} {conditions(section)}",
        long=True,
        numbers=add_names(points),
    )
