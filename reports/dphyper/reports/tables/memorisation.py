"""Whether generated images are copies: how near they lie to the private records, and to held-out ones.

Only where that may be told: on tuning tasks, and of methods without privacy (`dphyper.metrics.nearest`).
"""

import pandas as pd

from dphyper.reports.aggregate import beside, crossed, ratio
from dphyper.reports.sections import POINT, Section
from dphyper.reports.style import add_names, budget, mark, number, number_format, records, seed_counts
from dphyper.reports.table import ReportTable, Table, conditions

TO_PRIVATE, TO_HELD_OUT = "nearest_private", "nearest_heldout"


class Memorisation(ReportTable):
    """`nearest_records`, one row for each task, method and ε."""

    title = "Memorising: how near images come to the private records, {split} tasks"
    label = "memorisation"
    by_split = True
    order = 45

    @classmethod
    def make(cls, section: Section, split: str) -> Table | None:
        """As `ReportTable.make`."""
        tasks, found = section.tasks_with_mean(split), nearest_records(section)
        found = found[(found["split"] == split) & found["task"].isin(tasks)]
        if found.empty:
            return None
        shown = add_names(found).sort_values("task", key=lambda task: task.map(tasks.index), kind="stable")
        form = number_format(section, TO_PRIVATE)
        columns = {
            "Task": [section.title(split, task) for task in shown["task"]],
            "Method": shown["series"],
            "Budget": ["no ε" if row.role != "method" else budget(row.epsilon) for row in records(shown)],
        }
        cells = pd.DataFrame(
            {
                "Private / held-out": [mark(number(row.ratio, row.half, 2), row.doubted) for row in records(shown)],
                "To private": [*map(form.value, shown["private_distance"])],
                "To held-out": [*map(form.value, shown["held_out_distance"])],
                "Seeds": seed_counts(shown.reset_index(), ["index"]).to_list(),
            },
            index=pd.MultiIndex.from_frame(pd.DataFrame(columns)),
        )
        return Table(
            cells=cells,
            caption=(
                "Mean distance of features from a generated image to the nearest private record, over that to the "
                "nearest of as many held-out ones: about 1 where nothing is memorised, 0 for copies. Mean ± half of "
                "the 95% Student-t interval of the ratio; n/a: one seed, no interval. These are the judge's numbers "
                "and no release: they are functions of the private records, so that rows of private methods on "
                f"private tasks do not have them. {conditions(section)}"
            ),
            long=True,
            numbers=shown,
        )


def nearest_records(section: Section) -> pd.DataFrame:
    """Distances to private and held-out records, and their ratio.

    Returns:
        One row for each point that has both. Columns: those of `POINT`, ``ratio``, ``half`` (NaN for one seed),
        ``seeds``, ``trainings``, ``private_distance``, ``held_out_distance`` and ``doubted``.
    """
    rows = []
    values = section.values[section.values["metric"].isin([TO_PRIVATE, TO_HELD_OUT])]
    for key, points in values.groupby(POINT):
        pairs, (private, held_out) = beside(*(points[points["metric"] == name] for name in (TO_PRIVATE, TO_HELD_OUT)))
        if pairs:
            found, distances = (
                ratio(pairs, private, held_out),
                (crossed(pairs, side).mean for side in (private, held_out)),
            )
            rows.append((*key, *found[:4], *distances, points["doubted"].any()))
    names = ["ratio", "half", "seeds", "trainings", "private_distance", "held_out_distance", "doubted"]
    return pd.DataFrame(rows, columns=[*POINT, *names])
