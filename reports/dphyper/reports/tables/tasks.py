"""Methods against ε for each task of a split, where it has several."""

from dphyper.reports.sections import Section
from dphyper.reports.table import ReportTable, Table
from dphyper.reports.tables.main import methods_against_epsilon


class Tasks(ReportTable):
    """Methods against ε, in blocks of tasks."""

    title = "Each {split} task"
    label = "tasks"
    by_split = True
    order = 20

    @classmethod
    def make(cls, section: Section, split: str) -> Table | None:
        """As `ReportTable.make`."""
        tasks = section.tasks(split)
        return methods_against_epsilon(section, split, tasks) if len(tasks) > 1 else None
