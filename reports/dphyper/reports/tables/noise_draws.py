"""How far the draw of the privacy noise alone moves a result."""

import numpy as np
import pandas as pd

from dphyper.metrics.metric import HEADLINE
from dphyper.reports.measures import direction, in_units, metric_title
from dphyper.reports.sections import POINT, SEEDS, Section
from dphyper.reports.style import add_names, budget, mark, number_format
from dphyper.reports.table import ReportTable, Table, conditions, legend


class NoiseDraws(ReportTable):
    """`noise_quantiles` in print, where a cell ran with several draws of its noise."""

    title = "Draws of the privacy noise"
    label = "noise"
    order = 50

    @classmethod
    def make(cls, section: Section, split: str) -> Table | None:
        """As `ReportTable.make`."""
        found = noise_quantiles(section)
        if found.empty:
            return None
        found, form = add_names(found), number_format(section)
        index = pd.MultiIndex.from_arrays(
            [[section.title("private", task) for task in found["task"]], found["name"], found["epsilon"].map(budget)],
            names=["Task", "Method", "Budget"],
        )
        titles = {"mean": "Mean", "q10": "10 %", "q50": "Median", "q90": "90 %", "worst": "Worst"}
        cells = pd.DataFrame(
            {title: [*map(form.value, found[column])] for column, title in titles.items()}, index=index
        )
        cells["Mean"] = [*map(mark, cells["Mean"], found["doubted"])]
        cells["Draws"] = found["draws"].astype(str).to_list()
        return Table(
            cells=cells,
            caption=(
                f"{metric_title(HEADLINE, section.extractor)}{in_units(HEADLINE)} over draws of the privacy noise, on "
                "the same private records: quantiles of all noise draws after the mean of each training and draw of "
                "records was moved to the common mean and deviations from the mean of m draws were widened "
                "by √(m / (m − 1)). A method that releases once "
                f"stakes everything on one draw.{legend(found)} {conditions(section)}"
            ),
            long=True,
        )


def noise_quantiles(section: Section) -> pd.DataFrame:
    """How far the draw of the privacy noise alone moves the headline metric.

    The mean of each training and draw of records is moved to the common mean, so that what differs between them does
    not enter. Deviations from the mean of m draws are widened by √(m / (m − 1)), because that mean has moved towards
    them.

    Returns:
        One row for each private task, series and ε with several draws. Columns: those of `POINT`, ``draws`` (of all
        seeds), ``mean``, the quantiles ``q10``, ``q50`` and ``q90`` and the ``worst`` of the numbers so moved, and
        ``doubted``.
    """
    rows = section.rows[(section.rows["split"] == "private") & np.isfinite(section.rows["epsilon"])]
    found = []
    for key, group in rows.groupby(POINT):
        per_seed = group.groupby(SEEDS)[HEADLINE]
        several = group[per_seed.transform("size") > 1]
        if several.empty:
            continue
        mean = float(per_seed.mean().mean())
        own = several.groupby(SEEDS)[HEADLINE]
        size = own.transform("size")
        centred = (several[HEADLINE] - own.transform("mean")) * np.sqrt(size / (size - 1)) + mean
        worst = centred.max() if direction(HEADLINE).sign < 0 else centred.min()
        quantiles = centred.quantile([0.1, 0.5, 0.9])
        found.append((*key, len(several), mean, *quantiles, worst, group["doubted"].any()))
    return pd.DataFrame(found, columns=[*POINT, "draws", "mean", "q10", "q50", "q90", "worst", "doubted"])
