"""Each embedding dimension k of a method beside its best k at the same ε."""

import numpy as np
import pandas as pd

from dphyper.metrics.metric import HEADLINE
from dphyper.reports.aggregate import goodness, paired_difference
from dphyper.reports.measures import direction, in_units, metric_title
from dphyper.reports.sections import POINT, Section
from dphyper.reports.style import add_names, mark, number_format
from dphyper.reports.table import ReportTable, Table, against_epsilon, conditions, legend


class EmbeddingDims(ReportTable):
    """What another k than the best one costs, where a method ran with several."""

    title = "Each embedding dimension k, {split} tasks"
    label = "k"
    by_split = True
    order = 40

    @classmethod
    def make(cls, section: Section, split: str) -> Table | None:
        """As `ReportTable.make`."""
        tasks = section.tasks_with_mean(split)
        points = _beside_the_best(section, split)
        if points.empty:
            return None
        points["place"] = points["task"].map(tasks.index)
        points["Task"] = [section.title(split, task) for task in points["task"]]
        points["Method"] = points["name"]
        points = points.sort_values("place", kind="stable")
        epsilons, towards = sorted(points["epsilon"].unique()), direction(HEADLINE)
        return Table(
            cells=against_epsilon(points, ["Task", "Method"], "cell", epsilons).fillna("–"),
            bold=against_epsilon(points, ["Task", "Method"], "bold", epsilons).fillna(False).astype(bool),
            caption=(
                f"{metric_title(HEADLINE, section.extractor)}{in_units(HEADLINE)} of the {split} tasks for each "
                f"embedding dimension k: the mean, and how far it lies {towards.bad_side} the "
                f"{towards.best} of its method at the same ε, paired by training and draw, ± half of the 95% Student-t "
                "interval; "
                f"n/a: one seed, no interval. Bold: the {towards.best} and those whose difference to it has an "
                f"interval that includes 0, with no correction for many comparisons or for the {towards.best} having "
                "been picked; numbers of one seed are never bold. Private results show the best k and never choose it."
                f"{legend(points)} {conditions(section)}"
            ),
            long=True,
        )


def _beside_the_best(section: Section, split: str) -> pd.DataFrame:
    """The points with several k, in print (``cell``, ``bold``) and `named`; empty where there are none."""
    values = section.every_k
    values = values[(values["metric"] == HEADLINE) & (values["split"] == split)]
    values = values[values["task"].isin(section.tasks_with_mean(split))]
    form, towards = number_format(section), direction(HEADLINE)
    sign = "+" if towards.sign < 0 else "−"
    found = []
    for _, place in values.groupby([column for column in POINT if column != "embedding_dim"]):
        several = [part for _, part in place.groupby("embedding_dim")]
        lead = max(several, key=goodness)
        for part in several if len(several) > 1 else []:
            gap, mean = paired_difference(part, lead), form.value(part["value"].mean())
            cell = mean if part is lead else f"{mean} ({sign} {form.interval(-towards.sign * gap.mean, gap.half)})"
            doubted, own = bool(part["doubted"].any()), part[POINT].iloc[0]
            tied = np.isfinite(gap.half) and towards.sign * gap.sign >= 0
            bold = tied and not doubted and own["selection"] != "unknown"
            found.append({**own, "cell": mark(cell, doubted), "bold": bold, "doubted": doubted})
    return add_names(pd.DataFrame(found)) if found else pd.DataFrame()
