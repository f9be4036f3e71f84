"""The hypernetwork minus other methods, with verdicts in words, alone and corrected for many comparisons."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from dphyper.metrics.metric import HEADLINE
from dphyper.reports.aggregate import CONFIDENCE
from dphyper.reports.differences import TIED, differences
from dphyper.reports.measures import direction, in_units, metric_title
from dphyper.reports.sections import DOUBT, Section
from dphyper.reports.style import budget, mark, number_format, records, seed_counts
from dphyper.reports.table import ReportTable, Table, conditions

MOST_SEEDS = 100  # beyond it nobody runs a comparison
POWER = 0.8  # the usual probability with which a difference is to be found


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
                "After Holm": _after_holm(shown).to_list(),
                "Seeds to tell": [_seeds_to_tell(row) for row in records(shown)],
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
                "Better and worse: the interval excludes 0, with no correction for many comparisons. After Holm: the "
                "same after Holm's correction for all rivals and budgets of a task, whatever their dependence. Seeds "
                f"to tell: how many draws would show a difference as large as this one in {POWER:.0%} of cases, of one "
                "training and if its scatter is as seen."
                f"{aside} {conditions(section)}"
            ),
            long=True,
        )


def _after_holm(gaps: pd.DataFrame) -> "pd.Series[str]":
    """The verdict on each difference where its p-value stands Holm's correction over the differences of its task."""
    from statsmodels.stats.multitest import multipletests  # imported late, for it takes a second

    said = pd.Series("–", gaps.index)
    for _, part in gaps[gaps["p"].notna()].groupby("task"):
        stands, *_ = multipletests(part["p"], alpha=1 - CONFIDENCE, method="holm")
        said[part.index] = np.where(stands, part["verdict"], TIED)
    return said


def _seeds_to_tell(gap: Any) -> str:
    """How many seeds would tell a difference of this size; only asked where these seeds do not, of one training."""
    from statsmodels.stats.power import TTestPower

    if gap.verdict != TIED or gap.trainings > 1:
        return "–"
    scatter = gap.half / stats.t.ppf((1 + CONFIDENCE) / 2, gap.seeds - 1) * np.sqrt(gap.seeds)
    counts = np.arange(2, MOST_SEEDS + 1)
    enough = TTestPower().power(abs(gap.difference) / scatter, counts, 1 - CONFIDENCE) >= POWER
    return f"about {counts[enough.argmax()]}" if enough.any() else f"over {MOST_SEEDS}"
