"""How much of the way from the public model to real images each method goes, and how much its ceiling goes.

The share is (p − m) / (p − r): m is the method, p the public model, r real images judged by other real ones. 1 is as
good as real images, 0 as good as the public model, below 0 worse. Unlike the share of the ceiling's gap it does not
grow as the ceiling gets worse. Its interval is that of the ratio (delta method), over p, m and r paired by training and
draw.

Of several tasks the share is that of their mean values, not the mean of their shares.
"""

from functools import lru_cache

import pandas as pd

from dphyper.reports.aggregate import Interval, beside, best_series, crossed, interval, ratio
from dphyper.reports.measures import direction, metric_title
from dphyper.reports.sections import POINT, REAL, Section
from dphyper.reports.style import add_names, budget, mark, number, records, seed_counts
from dphyper.reports.table import ReportTable, Table, conditions, legend
from dphyper.reports.tables.by_metric import iterate_places
from dphyper.reports.tables.gains import PUBLIC_MODEL
from dphyper.reports.tables.gap_closed import gap_closed


class WayToReal(ReportTable):
    """`ways_to_real` beside `gap_closed`, one row for each."""

    title = "Share of the way from the public model to real images, {split} tasks"
    label = "way"
    by_split = True
    order = 25

    @classmethod
    def make(cls, section: Section, split: str) -> Table | None:
        """As `ReportTable.make`."""
        tasks, ways = section.tasks_with_mean(split), ways_to_real(section)
        ways = ways[(ways["split"] == split) & ways["task"].isin(tasks)]
        if ways.empty:
            return None
        gaps = gap_closed(section)
        keys = ["metric", *POINT]
        shown = add_names(ways.merge(gaps[[*keys, "closed", "half"]], how="left", on=keys, suffixes=("", "_closed")))
        # What knows no ε has one row.
        constant = shown["role"] != "method"
        shown = shown[~(constant & shown.duplicated([key for key in keys if key != "epsilon"]))]
        shown["place"] = shown["task"].map(tasks.index)
        shown = shown.sort_values(["place", "metric"], kind="stable").drop(columns="place")
        measures = [metric_title(metric, section.extractor) for metric in shown["metric"]]
        columns = {
            "Task": [section.title(split, task) for task in shown["task"]],
            "Measure": measures,
            "Method": shown["series"],
            "Budget": ["no ε" if row.role != "method" else budget(row.epsilon) for row in records(shown)],
        }
        if len({*measures}) == 1:
            del columns["Measure"]  # the caption names it
        cells = pd.DataFrame(
            {
                "Way to real": [mark(number(row.way, row.half, 2), row.doubted) for row in records(shown)],
                "Ceiling": [f"{value:.2f}" for value in shown["ceiling"]],
                "Ceiling's gap": [number(row.closed, row.half_closed, 2) for row in records(shown)],
                "Seeds": seed_counts(shown.reset_index(), ["index"]).to_list(),
            },
            index=pd.MultiIndex.from_frame(pd.DataFrame(columns)),
        ).replace(r"nan.*", "–", regex=True)
        return Table(
            cells=cells,
            caption=(
                f"{' and '.join(dict.fromkeys(measures))}: share of the way from the public model to real images, "
                "(public only − method) / (public only − real versus real); 1 is as good as real images, 0 as good as "
                "the public model. Mean ± half of the 95% Student-t interval of the ratio, paired by training and "
                "draw; n/a: one seed, no interval. Ceiling: the share of the best method without privacy. Ceiling's "
                "gap: the share of the way to the non-private LoRA, from the better of public only and public mean, "
                f"which grows as that ceiling gets worse.{legend(shown)} {conditions(section)}"
            ),
            long=True,
            numbers=shown,
        )


@lru_cache(maxsize=1)  # the page, the verdict and tables ask for the same section in turn; they change no frame
def ways_to_real(section: Section) -> pd.DataFrame:
    """The share of each method, series that know no ε repeated at every budget.

    Returns:
        One row for each metric and point where the public model is worse than real images. Columns: ``metric``, those
        of `POINT`, ``way``, ``half`` (NaN for one seed), ``seeds`` and ``trainings`` (that the method, the public
        model and real images all have), ``ceiling`` (the share of the best ceiling; NaN without one),
        ``ceiling_method`` and ``doubted`` (of the method or the public model).
    """
    rows = []
    for place in iterate_places(section):
        public, real = (place[place["method"] == method] for method in (PUBLIC_MODEL, REAL))
        ceiling = best_series(place[place["role"] == "ceiling"])
        reached = _share(ceiling, public, real).mean
        others = place[(place["method"] != PUBLIC_MODEL) & (place["role"] != "reference")]
        for key, points in others.groupby(["metric", *POINT]):
            share = _share(points, public, real)
            if share.seeds:
                doubted = bool(points["doubted"].any() or public["doubted"].any())
                rows.append((*key, *share[:4], reached, "".join(ceiling["method"].head(1)), doubted))
    names = ["way", "half", "seeds", "trainings", "ceiling", "ceiling_method", "doubted"]
    return pd.DataFrame(rows, columns=["metric", *POINT, *names])


def _share(points: pd.DataFrame, public: pd.DataFrame, real: pd.DataFrame) -> Interval:
    """The share of some points; of no draws where there is no way to go."""
    pairs, (own, zero, perfect) = beside(points, public, real)
    if not pairs or direction(points["metric"].iloc[0]).sign * crossed(pairs, zero - perfect).mean >= 0:
        return interval([])
    return ratio(pairs, zero - own, zero - perfect)
