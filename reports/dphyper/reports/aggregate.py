"""From rows to numbers: comparable sections, one value for each seed, intervals and paired differences.

Rows are compared only inside a `Section`: one collection, protocol, base model, sampler, n, relation and δ.
Draws of the privacy noise are averaged inside their seed (`noise_quantiles` tells them apart); beyond that nothing is
averaged before its seed is gone: intervals are Student's t over seeds, the mean over tasks is taken
inside each seed first and only over seeds that finished every task, and differences are paired by seed. One
seed has no interval (NaN), never a zero. The 95% of each interval holds for that interval alone: no correction
is made for looking at many of them.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from dphyper.bench.store import NESTED, Row, Store
from dphyper.core.labels import doubt

DOUBT = "‡"
ALL = "all tasks"
REAL = "real_versus_real"
METRICS = ("frechet", "kernel")
SECTION = ["collection", "protocol", "base_hash", "sampling_steps", "n", "relation", "delta"]
SERIES = ["role", "method", "variant", "embedding_dim", "private", "selection"]
POINT = ["split", "task", *SERIES, "epsilon"]
ROLES = {
    "method": "Private methods",
    "control": "Controls",
    "floor": "Floor: public data only",
    "ceiling": "Ceiling: no privacy",
    "reference": "Real images",
}


class Interval(NamedTuple):
    """A mean with its 95% Student-t interval, mean ± half; ``half`` is NaN below two values."""

    mean: float
    half: float
    seeds: int

    @property
    def sign(self) -> int:
        """-1 or 1 where the interval lies wholly below or above 0, else 0 (also without an interval).

        >>> Interval(-3.0, 1.0, 5).sign, Interval(3.0, 4.0, 5).sign, Interval(-3.0, math.nan, 1).sign
        (-1, 0, 0)
        """
        return int(np.sign(self.mean)) if abs(self.mean) > self.half else 0


def interval(values: Iterable[float]) -> Interval:
    """Mean and half width of the 95% Student-t interval of independent values.

    >>> mean, half, seeds = interval([1.0, 2.0, 3.0])
    >>> mean, round(half, 3), seeds
    (2.0, 2.484, 3)
    >>> interval([1.0])
    Interval(mean=1.0, half=nan, seeds=1)
    """
    array = np.asarray([*values], dtype=float)
    if not len(array):
        return Interval(math.nan, math.nan, 0)
    half = stats.t.ppf(0.975, len(array) - 1) * stats.sem(array) if len(array) > 1 else math.nan
    return Interval(float(array.mean()), float(half), len(array))


@dataclass(frozen=True, kw_only=True)
class Section:
    """Rows that may stand side by side.

    Attributes:
        key: The columns of `SECTION` and their values.
        rows: The finished rows, every method at its own k, less the search trials; each has the columns of
            `Row`, ``sampling_steps``, ``options`` (JSON, the shape of the LoRA with them), ``doubted`` (it is marked
            private and `labels.doubt` says why it supports no claim) and ``variant`` (the options in words where one
            method ran with several at one point, else "").
        values: One value of these rows for each metric, point and seed; the columns are `POINT`, ``metric``,
            ``seed``, ``value`` and ``doubted`` (of some row behind it). Task `ALL` holds the mean over tasks of a seed.
        every_k: The same, of the rows of every k.
        tuned_k: Method to the k that was chosen for it on tuning tasks, where it ran with several.
        trials: Finished rows on tuning tasks that only served a hyper-parameter search.
    """

    key: dict[str, Any]
    rows: pd.DataFrame
    values: pd.DataFrame
    every_k: pd.DataFrame
    tuned_k: dict[str, int]
    trials: int

    @property
    def epsilons(self) -> list[float]:
        """The budgets of the section's private methods, rising; ∞ alone when there is none."""
        return sorted(self.values.loc[self.values["role"] == "method", "epsilon"].unique()) or [math.inf]

    def tasks(self, split: str) -> list[str]:
        """The tasks of a split, by name."""
        return sorted(self.rows.loc[self.rows["split"] == split, "task"].unique())

    def shown(self, split: str) -> list[str]:
        """What to show of a split: `ALL`, where there are several tasks, and then each task."""
        tasks = self.tasks(split)
        return [ALL, *tasks] if len(tasks) > 1 else tasks

    def title(self, split: str, task: str) -> str:
        """A task in print; one of a development family is marked."""
        tasks, own = self.tasks(split), self.development
        if task == ALL:
            marked = len(own & {*tasks})
            return f"Mean of {len(tasks)} {split} tasks" + f", {marked} of them development" * bool(marked)
        return task + " (development)" * (task in own)

    @property
    def development(self) -> set[str]:
        """The tasks of families that have prompted a decision of the design."""
        return {*self.rows.loc[self.rows["development"], "task"]}

    @property
    def support(self) -> str:
        """How many private rows support no claim, as a sentence; empty if every one does."""
        return support(self.rows)

    @property
    def distances(self) -> "pd.Series[float]":
        """All Fréchet distances of the section."""
        return self.values.loc[self.values["metric"] == "frechet", "value"]

    @property
    def extractor(self) -> str:
        """The feature extractor; the protocol fixes it."""
        return str(self.rows["extractor"].iloc[0])


def load(store: Store) -> pd.DataFrame:
    """All rows with the options, the LoRA and the sampler of their cells.

    Raises:
        UserError: The store has no row.
    """
    rows = store.rows()
    rows = rows.reindex(
        columns=list(dict.fromkeys([*(name for name in Row.__annotations__ if name not in NESTED), *rows]))
    )
    cells = [store.cell(cell) for cell in rows["cell"]]
    shapes = [{"rank": cell.base.rank, "convolutions": cell.base.convolutions} for cell in cells]
    options = [json.dumps({**shape, **cell.options}, sort_keys=True) for shape, cell in zip(shapes, cells, strict=True)]
    steps = [cell.base.sampling_steps for cell in cells]
    rows = rows.assign(epsilon=rows["epsilon"].astype(float), options=options, sampling_steps=steps)
    rows = rows.fillna({"base_hash": "", "commit": ""}).astype({"private": bool, "development": bool})
    codes = zip(rows["private"], rows["harness"], rows["commit"], strict=True)
    return rows.assign(doubted=[bool(private and doubt(harness, commit)) for private, harness, commit in codes])


def support(rows: pd.DataFrame) -> str:
    """How many private rows of some that are finished support no claim, as a sentence; empty if every one does."""
    private = rows[(rows["status"] == "done") & rows["private"]]
    doubted = int(private["doubted"].sum())
    return (
        f"{doubted} of {len(private)} private rows come from code with known faults or of an unknown state; they are "
        f"marked {DOUBT} and support no claim."
        if doubted
        else ""
    )


def sections(rows: pd.DataFrame) -> Iterator[Section]:
    """Cut finished rows into sections, in the order of their keys."""
    for key, found in rows[rows["status"] == "done"].groupby(SECTION):
        part = _named_variants(_without_trials(found))
        own, tuned_k = [], {}
        for method, group in part.groupby("method"):
            k, tuned = _own_k(group)
            own.append(group[group["embedding_dim"] == k])
            if tuned:
                tuned_k[str(method)] = k
                # The search for k is in this store, on tuning tasks; what is unknown of the options stays so.
                own[-1] = own[-1].assign(selection=own[-1]["selection"].replace("fixed", "tuned_public"))
        rows_own_k = pd.concat(own)
        yield Section(
            key=dict(zip(SECTION, key, strict=True)),
            rows=rows_own_k,
            values=per_seed(rows_own_k),
            every_k=per_seed(part),
            tuned_k=tuned_k,
            trials=len(found) - len(part),
        )


def _without_trials(rows: pd.DataFrame) -> pd.DataFrame:
    """Drop tuning rows whose options lost: the private rows of that method, ε and k use others."""
    point = ["method", "epsilon", "embedding_dim"]
    private = rows[rows["split"] == "private"]
    decided = pd.MultiIndex.from_frame(rows[point]).isin(pd.MultiIndex.from_frame(private[point]))
    point.append("options")
    chosen = pd.MultiIndex.from_frame(rows[point]).isin(pd.MultiIndex.from_frame(private[point]))
    return rows[~decided | chosen]


def _named_variants(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.assign(variant="")
    # Whatever the seeds: those of one point with other options would be averaged.
    several = rows.groupby([column for column in POINT if column != "variant"])["options"].transform("nunique") > 1
    for method in rows.loc[several, "method"].unique():
        mine = rows["method"] == method
        options = {text: json.loads(text) for text in rows.loc[mine, "options"].unique()}
        names = sorted({name for given in options.values() for name in given})
        told = [name for name in names if len({str(given.get(name)) for given in options.values()}) > 1]
        words = {text: ", ".join(f"{name}={given.get(name)}" for name in told) for text, given in options.items()}
        rows.loc[mine, "variant"] = rows.loc[mine, "options"].map(words)
    return rows


def _own_k(rows: pd.DataFrame) -> tuple[int, bool]:
    """The k that a method is shown with, and whether tuning results chose it.

    Private results never choose: among the k of the private rows it is the best on those tuning points that
    every one of them has run, and without such points the most frequent (then the smallest).
    """
    private = rows[rows["split"] == "private"]
    shown = rows if private.empty else private
    tuning = rows[(rows["split"] == "tuning") & rows["embedding_dim"].isin(shown["embedding_dim"])]
    if shown["embedding_dim"].nunique() > 1 and tuning["embedding_dim"].nunique() == shown["embedding_dim"].nunique():
        wide = tuning.pivot_table(index=["task", "epsilon", "seed"], columns="embedding_dim", values="frechet").dropna()
        if len(wide):
            return int(wide.columns[int(np.argmin(wide.mean()))]), True
    return int(shown["embedding_dim"].mode().min()), False


def per_seed(rows: pd.DataFrame, metrics: Iterable[str] = METRICS) -> pd.DataFrame:
    """Long frame of one value for each of ``metrics``, point and seed, with `REAL` as a series and `ALL` as a task."""
    real = rows.drop_duplicates(["split", "task", "seed"]).assign(
        role="reference",
        method=REAL,
        variant="",
        embedding_dim=0,
        private=False,
        selection="non_private",
        doubted=False,
    )
    real = real.assign(epsilon=math.inf, **{name: real.get(f"real_{name}", math.nan) for name in metrics})
    keys = [*POINT, "seed"]
    known = [*keys, "doubted"]
    long = pd.concat([rows, real])[[*known, *metrics]].melt(id_vars=known, var_name="metric").dropna(subset="value")
    long = long.groupby([*keys, "metric"]).agg(value=("value", "mean"), doubted=("doubted", "any")).reset_index()
    place = [key for key in [*keys, "metric"] if key != "task"]
    over_tasks = []
    for _, part in long.groupby("split"):
        value = part.pivot(index=place, columns="task", values="value").dropna().mean(axis=1).rename("value")
        whole = part.groupby(place)["doubted"].any().reindex(value.index)
        over_tasks.append(pd.concat([value, whole], axis=1).reset_index().assign(task=ALL))
    return pd.concat([*over_tasks, long], ignore_index=True).astype({"doubted": bool})


def aggregate(values: pd.DataFrame) -> pd.DataFrame:
    """One row for each metric and point: ``mean``, ``half``, ``low``, ``high``, ``seeds`` and ``doubted``."""
    groups = values.groupby(["metric", *POINT])
    rows = [(*key, *interval(group["value"]), group["doubted"].any()) for key, group in groups]
    frame = pd.DataFrame(rows, columns=["metric", *POINT, "mean", "half", "seeds", "doubted"])
    # A frame without rows would have no types, and ε would be no number.
    kinds = {"mean": float, "half": float, "seeds": int, "doubted": bool}
    frame = frame.astype({**values.dtypes[["metric", *POINT]], **kinds})
    frame["low"], frame["high"] = frame["mean"] - frame["half"], frame["mean"] + frame["half"]
    return frame


def at_every_epsilon(section: Section) -> pd.DataFrame:
    """The values, with series that know no ε repeated at each budget where they have no value of their own."""
    values = section.values
    constant = (values["role"] != "method") & np.isinf(values["epsilon"])
    parts: list[pd.DataFrame] = [
        values[~constant],
        *(values[constant].assign(epsilon=epsilon) for epsilon in section.epsilons),
    ]
    return pd.concat(parts, ignore_index=True).drop_duplicates(["metric", *POINT, "seed"])


def noise_quantiles(section: Section) -> pd.DataFrame:
    """How far the draw of the privacy noise alone moves the Fréchet distance.

    One row for each private task, series and ε with several draws: ``draws`` (of all seeds), ``doubted``, ``mean``, the
    quantiles ``q10``, ``q50``, ``q90`` and the ``worst``, of the distances after each seed's mean is moved to the
    common mean, so that what differs between seeds does not enter; deviations from the mean of m draws are widened by
    √(m / (m − 1)), since that mean has moved towards them.
    """
    rows = section.rows[(section.rows["split"] == "private") & np.isfinite(section.rows["epsilon"])]
    found = []
    for key, group in rows.groupby(POINT):
        per_seed = group.groupby("seed")["frechet"]
        several = group[per_seed.transform("size") > 1]
        if several.empty:
            continue
        mean = float(per_seed.mean().mean())
        own = several.groupby("seed")["frechet"]
        size = own.transform("size")
        centred = (several["frechet"] - own.transform("mean")) * np.sqrt(size / (size - 1)) + mean
        quantiles = centred.quantile([0.1, 0.5, 0.9])
        found.append((*key, len(several), mean, *quantiles, centred.max(), group["doubted"].any()))
    return pd.DataFrame(found, columns=[*POINT, "draws", "mean", "q10", "q50", "q90", "worst", "doubted"])


def paired(first: pd.DataFrame, second: pd.DataFrame) -> Interval:
    """Interval of first − second over the seeds that both have; both are one point of one metric."""
    difference = first.set_index("seed")["value"] - second.set_index("seed")["value"]
    return interval(difference.dropna())


def best(values: pd.DataFrame) -> set[tuple[Any, ...]]:
    """The points (metric, then `POINT`) to print in bold: best private number of a column, and its ties.

    A column is one metric, task and finite ε of `at_every_epsilon`. A number is tied with the best when the 95%
    interval of their difference, paired by seed, includes 0. Numbers without a privacy guarantee, with a row that
    supports no claim behind them, of options that nobody knows how to have been chosen, or of one seed are never bold.
    """
    bold = set()
    doubted = values.groupby(["metric", *POINT])["doubted"].transform("any")
    supported = values["private"] & ~doubted & (values["selection"] != "unknown")
    eligible = values[supported & np.isfinite(values["epsilon"])]
    for _, column in eligible.groupby(["metric", "split", "task", "epsilon"]):
        points = {key: part for key, part in column.groupby(["metric", *POINT]) if len(part) > 1}
        if not points:
            continue
        lead = min(points.values(), key=lambda part: part["value"].mean())
        for key, part in points.items():
            difference = paired(part, lead)
            if part is lead or (difference.seeds > 1 and difference.sign <= 0):
                bold.add(key)
    return bold
