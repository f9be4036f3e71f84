"""How much of the gap between public data and no privacy each method closes: (z − m) / (z − c).

m is the method, c the non-private LoRA and z the better of what uses no private record: the public model, or the
public mean (the lower mean over seeds). 1 is as good as no privacy, 0 as good as no private record, below 0 worse.
The numerator is paired by seed and has its 95% Student-t interval; the gap that it is divided by is the mean over
seeds, taken as known, so that one seed with a small gap does not decide the mean. Where the ceiling is not below z
there is no gap and no number. The mean of several tasks is the gap of the means, not the mean of the gaps' shares.
"""

import dataclasses

import pandas as pd

from dphyper.reports.aggregate import POINT, SERIES, Interval, Section, at_every_epsilon, paired, per_seed
from dphyper.reports.style import distance, epsilon, named, number, records
from dphyper.reports.tables import Table, conditions, counts

ZEROS = ("public_only", "public_mean")
CEILING = "nonprivate_lora"
MEASURES = ("denoising_loss", "fid")


def gap_closed(section: Section) -> pd.DataFrame:
    """One row for each metric of `MEASURES` and point that has a gap.

    Columns: ``metric``, those of `POINT`, ``closed``, ``half`` (NaN below two seeds), ``seeds`` (that z and the method
    both have), ``zero`` (which method z is) and ``gap`` (z − c, in units of the metric).
    """
    values = at_every_epsilon(dataclasses.replace(section, values=per_seed(section.rows, MEASURES)))
    rows = []
    for _, place in values.groupby(["metric", "split", "task", "epsilon"]):
        zero, ceiling = _lowest(place[place["method"].isin(ZEROS)]), _lowest(place[place["method"] == CEILING])
        gap = paired(zero, ceiling).mean
        if not gap > 0:  # nor where one of them was not run
            continue
        others = place[~place["method"].isin([*ZEROS, CEILING]) & (place["role"] != "reference")]
        for key, points in others.groupby(["metric", *POINT]):
            gain: Interval = paired(zero, points)
            if gain.seeds:
                rows.append((*key, gain.mean / gap, gain.half / gap, gain.seeds, zero["method"].iloc[0], gap))
    return pd.DataFrame(rows, columns=["metric", *POINT, "closed", "half", "seeds", "zero", "gap"])


def _lowest(place: pd.DataFrame) -> pd.DataFrame:
    """The values of the series with the lowest mean; none of none."""
    series = [part for _, part in place.groupby(SERIES)]
    return min(series, key=lambda part: part["value"].mean()) if series else place


def gap_table(section: Section, closed: pd.DataFrame, label: str) -> Table:
    """`gap_closed`, which must not be empty, with methods as rows and ε as columns."""
    shown = [(split, task) for split in ("private", "tuning") for task in section.shown(split)]
    places = list(zip(closed["split"], closed["task"], strict=True))
    points = named(closed[[place in shown for place in places]])  # the mean of a single task is that task
    points["place"] = [shown.index((row.split, row.task)) for row in records(points)]
    points = points.sort_values(["place", "metric"], kind="stable")
    names = {"denoising_loss": "Denoising loss", "fid": distance("fid", section.extractor)}
    points["Task"] = [section.title(row.split, row.task) for row in records(points)]
    points["Measure"] = points["metric"].map(names)
    points["Method"] = points["series"]
    points["column"] = points["epsilon"].map(lambda value: f"ε = {epsilon(value)}")
    points["cell"] = [number(row.closed, row.half, 2) for row in records(points)]
    points["Seeds"] = points.groupby(["place", "metric", "series"])["seeds"].transform(counts)
    index = ["Task", "Measure", "Method", "Seeds"]
    budgets = [f"ε = {epsilon(value)}" for value in section.epsilons]
    order = pd.MultiIndex.from_frame(points[index].drop_duplicates())
    cells = points.pivot(index=index, columns="column", values="cell").reindex(index=order, columns=budgets).fillna("–")
    cells = cells.rename_axis(columns=None).reset_index(level="Seeds")
    return Table(
        cells=cells,
        bold=pd.DataFrame(False, index=cells.index, columns=cells.columns),
        caption=(
            "Share of the gap that a method closes: (z − method) / (z − non-private LoRA), z the better of public only "
            "and public mean; 1 is as good as no privacy, 0 as good as no private record. Mean ± half of the 95% "
            "Student-t interval of the numerator, paired by seed, over the mean gap; n/a: one seed, no interval. Tasks "
            f"where the non-private LoRA is not better than z have no gap and no row. {conditions(section)}"
        ),
        label=label,
        environment="longtable",
    )
