"""The hypernetwork minus other methods, with verdicts in words."""

import pandas as pd

from dphyper.metrics.metric import HEADLINE
from dphyper.reports.differences import differences
from dphyper.reports.measures import direction, in_units, metric_title
from dphyper.reports.sections import DOUBT, Section
from dphyper.reports.style import budget, mark, number_format, records, seed_counts
from dphyper.reports.table import ReportTable, Table, conditions


class Differences(ReportTable):
    """The paired differences of `dphyper.reports.differences`, one row for each."""

    title = "The hypernetwork minus other methods, {split} tasks"
    label = "differences"
    by_split = True
    order = 30

    @classmethod
    def make(cls, section: Section, split: str) -> Table | None:
        """As `ReportTable.make`."""
        tasks, gaps = section.tasks_with_mean(split), differences(section)
        shown = gaps[(gaps["metric"] == HEADLINE) & (gaps["split"] == split) & gaps["task"].isin(tasks)]
        if shown.empty:
            return None
        shown = shown.sort_values("task", key=lambda task: task.map(tasks.index), kind="stable")
        form = number_format(section)
        several = shown["series"].nunique() > 1
        index = pd.MultiIndex.from_arrays(
            [
                [section.title(split, task) for task in shown["task"]],
                shown["series"] + " − " + shown["rival"] if several else "− " + shown["rival"],
                [*shown["epsilon"].map(budget)],
            ],
            names=["Task", "Minus", "Budget"],
        )
        cells = pd.DataFrame(
            {
                metric_title(HEADLINE, section.extractor): [
                    mark(form.interval(row.difference, row.half), row.doubted) if row.seeds else "–"
                    for row in records(shown)
                ],
                "Seeds": seed_counts(shown.reset_index(), ["index"]).to_list(),
                "Verdict": shown["verdict"].to_list(),
            },
            index=index,
        )
        doubted = bool(shown["doubted"].any())
        aside = f" {DOUBT}: a side comes from code with known faults or of an unknown state." * doubted
        side = direction(HEADLINE).good_side
        return Table(
            cells=cells,
            caption=(
                f"{' and '.join(shown['series'].unique())} minus other methods, paired by training and draw: mean "
                f"± half of the 95% Student-t interval{in_units(HEADLINE)}; {side} 0 the hypernetwork is better. "
                "Better and worse: the interval excludes 0, with no correction for many comparisons."
                f"{aside} {conditions(section)}"
            ),
            long=True,
        )
