"""What each method costs in time."""

import numpy as np
import pandas as pd

from dphyper.reports.sections import Section
from dphyper.reports.style import add_names
from dphyper.reports.table import ReportTable, Table, conditions

YARDSTICK = "dp_sgd"


class Cost(ReportTable):
    """Median seconds of the public phase, once for all cells, and of the adaptation to one private dataset.

    The adaptation stands beside DP-SGD's, where that was run. Where it would show the secret number of private trials,
    rows do not have it and the table says so.
    """

    title = "What each method costs"
    label = "cost"
    order = 80

    @classmethod
    def make(cls, section: Section, split: str) -> Table:
        """As `ReportTable.make`."""
        rows = add_names(section.rows)
        medians = rows.groupby("series", sort=False)[["seconds_public", "seconds_adapt"]].median()
        share = medians["seconds_adapt"] / rows.loc[rows["method"] == YARDSTICK, "seconds_adapt"].median()
        cells = pd.DataFrame(
            {
                "Public phase": [f"{value:.0f} s" if value else "–" for value in medians["seconds_public"].fillna(0)],
                "Adaptation": ["secret" if np.isnan(value) else f"{value:.2f} s" for value in medians["seconds_adapt"]],
                "Of DP-SGD's": ["–" if np.isnan(value) else f"{100 * value:.1f} %" for value in share],
            },
            index=pd.Index(medians.index, name="Method"),
        )
        return Table(
            cells=cells,
            caption=(
                "Median wall time over cells, each on its worker's threads. The public phase is trained once for each "
                f"collection and embedding dimension. {conditions(section)}"
            ),
        )
