"""What each method gains over the public model, and which share of the gap to no privacy it closes.

The share is (z − m) / (z − c): m is the method, c the non-private LoRA and z the better of what uses no private
record: the public model, or the public mean (the lower mean over seeds). 1 is as good as no privacy, 0 as good as no
private record, below 0 worse. Differences are paired by seed and have their 95% Student-t interval; the gap that a
share is divided by is the mean over the same seeds, taken as known, so that one seed with a small gap does not decide
the mean.
Where the ceiling is not below z there is no gap and no number. The mean of several tasks is the gap of the means, not
the mean of the gaps' shares. Beside the distance stands the denoising loss, which sampling does not blur.
"""

import dataclasses

import pandas as pd

from dphyper.reports.aggregate import ALL, POINT, SERIES, Interval, Section, at_every_epsilon, paired, per_seed
from dphyper.reports.style import digits, distance, epsilon, named, number, records
from dphyper.reports.tables import Table, conditions, counts, legend, marked
from dphyper.reports.verdict import BETTER, WORSE, word

FLOOR = "public_only"
ZEROS = (FLOOR, "public_mean")
CEILING = "nonprivate_lora"
MEASURES = ("denoising_loss", "frechet")


def gap_closed(section: Section) -> pd.DataFrame:
    """One row for each metric of `MEASURES` and point that has a gap.

    Columns: ``metric``, those of `POINT`, ``closed``, ``half`` (NaN below two seeds), ``seeds`` (that z, c and the
    method all have), ``zero`` (which method z is), ``gap`` (z − c on these seeds, in units of the metric) and
    ``doubted`` (of z or the method).
    """
    rows = []
    for _, place in _measured(section).groupby(["metric", "split", "task", "epsilon"]):
        zero, ceiling = _lowest(place[place["method"].isin(ZEROS)]), _lowest(place[place["method"] == CEILING])
        others = place[~place["method"].isin([*ZEROS, CEILING]) & (place["role"] != "reference")]
        for key, points in others.groupby(["metric", *POINT]):
            common = points[points["seed"].isin(zero["seed"]) & points["seed"].isin(ceiling["seed"])]
            gain: Interval = paired(zero, common)
            gap = paired(zero[zero["seed"].isin(common["seed"])], ceiling).mean
            if gap > 0:  # which it is not, either, where one of the three was not run
                doubted = bool(points["doubted"].any() or zero["doubted"].any())
                rows.append((*key, gain.mean / gap, gain.half / gap, gain.seeds, zero["method"].iloc[0], gap, doubted))
    return pd.DataFrame(rows, columns=["metric", *POINT, "closed", "half", "seeds", "zero", "gap", "doubted"])


def gains(section: Section) -> pd.DataFrame:
    """Every method minus the public model, one row for each metric of `MEASURES` and point that both have a seed of.

    Columns: ``metric``, those of `POINT`, ``difference`` (below 0 the method is better), ``half``, ``seeds``,
    ``verdict`` and ``doubted`` (of the method or the public model).
    """
    rows = []
    for _, place in _measured(section).groupby(["metric", "split", "task", "epsilon"]):
        floor = place[place["method"] == FLOOR]
        others = place[(place["method"] != FLOOR) & (place["role"] != "reference")]
        for key, points in others.groupby(["metric", *POINT]):
            gap: Interval = paired(points, floor)
            if gap.seeds:
                rows.append((*key, *gap, word(gap), bool(points["doubted"].any() or floor["doubted"].any())))
    return pd.DataFrame(rows, columns=["metric", *POINT, "difference", "half", "seeds", "verdict", "doubted"])


def _measured(section: Section) -> pd.DataFrame:
    return at_every_epsilon(dataclasses.replace(section, values=per_seed(section.rows, MEASURES)))


def _lowest(place: pd.DataFrame) -> pd.DataFrame:
    """The values of the series with the lowest mean; none of none."""
    series = [part for _, part in place.groupby(SERIES)]
    return min(series, key=lambda part: part["value"].mean()) if series else place


def gap_table(section: Section, closed: pd.DataFrame, label: str) -> Table:
    """`gap_closed`, which must not be empty, with methods as rows and ε as columns."""
    cells = [number(row.closed, row.half, 2) for row in records(closed)]
    return _table(
        section,
        closed.assign(cell=cells),
        "Share of the gap that a method closes: (z − method) / (z − non-private LoRA), z the better of public only "
        "and public mean; 1 is as good as no privacy, 0 as good as no private record. Mean ± half of the 95% "
        "Student-t interval of the numerator, paired by seed, over the mean gap; n/a: one seed, no interval. Tasks "
        "where the non-private LoRA is not better than z have no gap and no row; in a mean of tasks those with the "
        "widest gaps weigh most.",
        label,
    )


def gain_table(section: Section, gained: pd.DataFrame, label: str) -> Table:
    """`gains`, which must not be empty, with methods as rows and ε as columns; the loss in units of 1e-4."""
    loss, decimals = gained["metric"] == "denoising_loss", digits(section.distances)
    cells = [
        number(1e4 * row.difference, 1e4 * row.half, 0) if lossy else number(row.difference, row.half, decimals)
        for row, lossy in zip(records(gained), loss, strict=True)
    ]
    own = gained[gained["private"] & (gained["role"] == "method") & (gained["seeds"] > 1)]
    own = own[(own["split"] == "private") & (own["task"] != ALL)]
    told = []
    for metric in MEASURES:
        verdicts = own.loc[own["metric"] == metric, "verdict"]
        if len(verdicts):
            better, worse = (verdicts == BETTER).sum(), (verdicts == WORSE).sum()
            told.append(f"{len(verdicts)} in {_measure(section, metric)}, {better} of them better and {worse} worse")
    counted = f" Differences of private methods on private tasks with an interval: {'; '.join(told)}." if told else ""
    return _table(
        section,
        gained.assign(cell=cells),
        "Methods minus public only, paired by seed: mean ± half of the 95% Student-t interval; below 0 the method is "
        "better than the public model, n/a: one seed, no interval. Denoising loss in units of 1e-4. Better and worse: "
        f"the interval excludes 0, with no correction for many comparisons.{counted}",
        label,
    )


def _measure(section: Section, metric: str) -> str:
    return distance("frechet", section.extractor) if metric == "frechet" else "denoising loss"


def _table(section: Section, points: pd.DataFrame, caption: str, label: str) -> Table:
    """The strings ``cell`` of points, with tasks, measures and methods as rows and ε as columns."""
    shown = [(split, task) for split in ("private", "tuning") for task in section.shown(split)]
    places = list(zip(points["split"], points["task"], strict=True))
    points = named(points[[place in shown for place in places]])  # the mean of a single task is that task
    points["place"] = [shown.index((row.split, row.task)) for row in records(points)]
    points = points.sort_values(["place", "metric"], kind="stable")
    points["Task"] = [section.title(row.split, row.task) for row in records(points)]
    measures = points["metric"].map(lambda metric: _measure(section, metric))
    points["Measure"] = measures.str[:1].str.upper() + measures.str[1:]
    points["Method"] = points["series"]
    points["cell"] = [*map(marked, points["cell"], points["doubted"])]
    points["column"] = points["epsilon"].map(lambda value: f"ε = {epsilon(value)}")
    points["Seeds"] = points.groupby(["place", "metric", "series"])["seeds"].transform(counts)
    index = ["Task", "Measure", "Method", "Seeds"]
    budgets = [f"ε = {epsilon(value)}" for value in section.epsilons]
    order = pd.MultiIndex.from_frame(points[index].drop_duplicates())
    cells = points.pivot(index=index, columns="column", values="cell").reindex(index=order, columns=budgets).fillna("–")
    cells = cells.rename_axis(columns=None).reset_index(level="Seeds")
    return Table(
        cells=cells,
        bold=pd.DataFrame(False, index=cells.index, columns=cells.columns),
        caption=f"{caption}{legend(points)} {conditions(section)}",
        label=label,
        environment="longtable",
    )
