"""A report table of your own: how many results stand behind each method."""

import pandas as pd

from dphyper.reports.sections import Section
from dphyper.reports.style import add_names
from dphyper.reports.table import ReportTable, Table, conditions


class Counts(ReportTable):
    """Cells, tasks and seeds of each method."""

    title = "How many results stand behind each method"
    label = "counts"
    order = 90  # after the tables that come with dphyper

    @classmethod
    def make(cls, section: Section, split: str) -> Table:
        """One row for each method; its rows in the store are `section.rows`, one for each cell."""
        groups = add_names(section.rows).groupby("series", sort=False)
        counts = pd.DataFrame(
            {"Cells": groups.size(), "Tasks": groups["task"].nunique(), "Seeds": groups["seed"].nunique()}
        )
        return Table(cells=counts.astype(str).rename_axis("Method"), caption=f"Finished cells. {conditions(section)}")
