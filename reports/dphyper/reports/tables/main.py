"""The main table of a split: methods against ε, over the means of its tasks or its single task."""

import numpy as np

from dphyper.metrics.metric import HEADLINE
from dphyper.reports.aggregate import aggregate, at_every_epsilon, best
from dphyper.reports.measures import direction, in_units, metric_title
from dphyper.reports.sections import POINT, ROLES, Section
from dphyper.reports.style import add_names, mark, number_format, records, seed_counts
from dphyper.reports.table import ReportTable, Table, against_epsilon, conditions, legend

DAGGER = "†"


class Main(ReportTable):
    """Methods against ε, the means of the tasks of a split."""

    label = "main"
    by_split = True
    order = 10
    opened = True

    @classmethod
    def make(cls, section: Section, split: str) -> Table | None:
        """As `ReportTable.make`."""
        shown = section.means(split) or section.tasks(split)
        return methods_against_epsilon(section, split, shown) if shown else None

    @classmethod
    def title_of(cls, section: Section, split: str) -> str:
        """Which tasks it is the mean of."""
        return "; ".join(section.title(split, task) for task in section.means(split) or section.tasks(split))


def methods_against_epsilon(section: Section, split: str, tasks: list[str]) -> Table:
    """Methods (rows, in blocks of tasks when there are several) against ε (columns), by the headline metric."""
    values = at_every_epsilon(section)
    values = values[(values["metric"] == HEADLINE) & (values["split"] == split) & values["task"].isin(tasks)]
    bold, points = best(values), add_names(aggregate(values))
    form = number_format(section)
    points["cell"] = [
        mark(form.interval(row.mean, row.half) + DAGGER * (not row.private), row.doubted) for row in records(points)
    ]
    points["bold"] = [key in bold for key in points[["metric", *POINT]].itertuples(index=False, name=None)]
    points["Method"] = points["name"] + np.where(points["private"], "", DAGGER)
    points["Task"] = [section.title(split, task) for task in points["task"]]
    points["Group"] = points["role"].map(ROLES)
    points["Hyper-parameters"] = points["qualifier"]
    points["Seeds"] = seed_counts(points, ["task", "series"])
    points["place"] = points["task"].map(tasks.index)
    points = points.sort_values("place", kind="stable")
    index = ["Group" if len(tasks) == 1 else "Task", "Method", "Hyper-parameters", "Seeds"]
    cells = against_epsilon(points, index, "cell", section.epsilons).fillna("–")
    mask = against_epsilon(points, index, "bold", section.epsilons).fillna(False).astype(bool)
    what, better = metric_title(HEADLINE, section.extractor) + in_units(HEADLINE), direction(HEADLINE).better
    return Table(
        cells=cells.reset_index(level="Seeds"),
        bold=mask.droplevel("Seeds").reindex(columns=["Seeds", *cells.columns], fill_value=False),
        caption=(
            f"{what} ({better} is better) of the {split} tasks, mean ± half of the 95% Student-t interval; "
            "n/a: one seed, no interval. Bold: the best private number of a column and those whose difference to it, "
            "paired by training and draw, has a 95% interval that includes 0, with no correction for many comparisons: "
            "with few seeds, a method that scatters is tied too; numbers of one seed are never bold. "
            f"{DAGGER}: no privacy guarantee, never bold.{legend(points)} Methods that know no ε stand in every "
            f"column. {conditions(section)}"
        ),
    )
