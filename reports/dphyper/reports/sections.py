"""From rows to sections: the rows that may stand side by side, and one value for each training and draw of them.

Rows are compared only inside a `Section`: one collection, protocol, base model, sampler, n, relation and δ. Base models
that differ in nothing but the seed of their training are one, in several trainings. Draws of the privacy noise are
averaged inside their seed. The mean over tasks is taken inside each training and draw, and only over those that
finished every task; they themselves are never averaged here (`dphyper.reports.aggregate`).
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dphyper.bench.store import NESTED, Row, Store
from dphyper.core.labels import doubt
from dphyper.core.specs import content_hash
from dphyper.metrics.metric import HEADLINE
from dphyper.reports.measures import direction, known_metrics

DOUBT = "‡"  # marks a number with rows behind it that support no claim
ALL = "all tasks"  # as a task, the mean over them
OTHERS = "other tasks"  # as a task, the mean over those of no development family
MEANS = (ALL, OTHERS)
REAL = "real_versus_real"  # as a method, real records judged by other real ones
# Columns that are one value in a section, that tell series apart, and that tell points of a series apart.
SECTION = ["collection", "protocol", "base", "sampling_steps", "n", "relation", "delta"]
SERIES = ["role", "method", "variant", "embedding_dim", "private", "selection"]
POINT = ["split", "task", *SERIES, "epsilon"]
SEEDS = ["training", "seed"]  # the training of the base model and all that follows from it, and the draw
ROLES = {
    "method": "Private methods",
    "control": "Controls",
    "floor": "Floor: public data only",
    "ceiling": "Ceiling: no privacy",
    "reference": "Real images",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """Rows that may stand side by side.

    Attributes:
        key: The columns of `SECTION` and their values.
        rows: The finished rows, every method at its own k, without search trials. Beside the columns of `load` they
            have ``variant``: the options in words where one method ran with several at one point, else "".
        values: One value of these rows for each metric, point, training and draw; the columns are `POINT`, ``metric``,
            `SEEDS`, ``value`` and ``doubted`` (of some row behind it). Task `ALL` holds the mean over tasks, `OTHERS`
            that over tasks of no development family, method `REAL` the metric on real records, where there is one.
        every_k: The same for the rows of every k.
        ceilings: The finished rows of ceilings, search trials included.
        tuned_k: Method to the k that was chosen for it on tuning tasks, where it ran with several.
        trials: Finished rows on tuning tasks that only served a hyper-parameter search.
    """

    key: dict[str, Any]
    rows: pd.DataFrame
    values: pd.DataFrame
    every_k: pd.DataFrame
    ceilings: pd.DataFrame
    tuned_k: dict[str, int]
    trials: int

    @property
    def metrics(self) -> list[str]:
        """The metrics that have a value here, the headline metric first."""
        return known_metrics(self.values["metric"].unique())

    @property
    def epsilons(self) -> list[float]:
        """The budgets of the section's private methods, rising; ∞ alone when there is none."""
        return sorted(self.values.loc[self.values["role"] == "method", "epsilon"].unique()) or [math.inf]

    def tasks(self, split: str) -> list[str]:
        """The tasks of a split, by name."""
        return sorted(self.rows.loc[self.rows["split"] == split, "task"].unique())

    def tasks_with_mean(self, split: str) -> list[str]:
        """What to show of a split: the means of several tasks (`means`), and then each task."""
        return [*self.means(split), *self.tasks(split)]

    def means(self, split: str) -> list[str]:
        """`ALL` where a split has several tasks, and `OTHERS` where some but not all are of development families.

        A mean of one task is not shown beside that task.
        """
        tasks = {*self.tasks(split)}
        others = len(tasks - self.development)
        return [ALL] * (len(tasks) > 1) + [OTHERS] * (1 < others < len(tasks))

    def title(self, split: str, task: str) -> str:
        """A task in print; one of a development family is marked."""
        tasks, own = self.tasks(split), self.development
        if task == ALL:
            count = len(own & {*tasks})
            return f"Mean of {len(tasks)} {split} tasks" + f", {count} of them development" * bool(count)
        if task == OTHERS:
            return f"Mean of the other {len({*tasks} - own)} {split} tasks"
        return task + " (development)" * (task in own)

    @property
    def development(self) -> set[str]:
        """The tasks of families that have prompted a decision of the design."""
        return {*self.rows.loc[self.rows["development"], "task"]}

    @property
    def extractor(self) -> str:
        """The feature extractor; the protocol fixes it."""
        return str(self.rows["extractor"].iloc[0])


def load(store: Store) -> pd.DataFrame:
    """All rows of a store.

    Returns:
        The columns of `Row`, metrics and diagnostics under their own names, and of the cell ``sampling_steps``,
        ``options`` (JSON, with the shape of the LoRA), ``training`` (the seed of the base model) and ``untrained``
        (hash of everything else about data and base model). ``doubted`` says that a row is marked private and supports
        no claim (`labels.doubt`).

    Raises:
        UserError: The store has no row.
    """
    rows = store.rows()
    rows = rows.reindex(
        columns=list(dict.fromkeys([*(name for name in Row.__annotations__ if name not in NESTED), *rows]))
    )
    cells = [store.cell(cell) for cell in rows["cell"]]
    shapes = [{"rank": cell.base.rank, "layers": cell.base.layers} for cell in cells]
    options = [json.dumps({**shape, **cell.options}, sort_keys=True) for shape, cell in zip(shapes, cells, strict=True)]
    rows = rows.assign(
        epsilon=rows["epsilon"].astype(float),
        options=options,
        sampling_steps=[cell.base.sampling_steps for cell in cells],
        training=[cell.base.seed for cell in cells],
        untrained=[content_hash([asdict(cell.data), asdict(replace(cell.base, seed=0))]) for cell in cells],
    )
    rows = rows.fillna({"base_hash": "", "commit": ""}).astype({"private": bool, "development": bool})
    codes = zip(rows["private"], rows["harness"], rows["commit"], strict=True)
    return rows.assign(doubted=[bool(private and doubt(harness, commit)) for private, harness, commit in codes])


def support(rows: pd.DataFrame) -> str:
    """How many of the finished private rows support no claim, as a sentence; empty if every one does."""
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
    done = rows[rows["status"] == "done"]
    for key, found in done.assign(base=_bases(done)).groupby(SECTION):
        part = _name_variants(_drop_trials(found))
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
            ceilings=found[found["role"] == "ceiling"],
            tuned_k=tuned_k,
            trials=len(found) - len(part),
        )


def _bases(rows: pd.DataFrame) -> "pd.Series[str]":
    """The base model of each row, by the hash of its first training.

    Hashes belong together where rows with nothing else different have them, at different seeds. Two hashes at one seed
    are two models (of other data or of another version), and then none of their kin can be told to belong to either.
    """
    pairs = rows[["base_hash", "untrained"]].drop_duplicates()
    models, specs = (pd.factorize(pairs[column])[0] for column in pairs)
    edges = (np.ones(len(pairs)), (models, specs + len(pairs)))
    _, kin = connected_components(coo_array(edges, shape=(2 * len(pairs),) * 2), directed=False)
    group = rows["base_hash"].map(dict(zip(pairs["base_hash"], kin[models], strict=True)))
    trainings = rows.assign(group=group).sort_values("training", kind="stable").groupby("group")
    alone = rows.groupby([group, "training"])["base_hash"].nunique().groupby(level=0).max() == 1
    return rows["base_hash"].where(~group.map(alone), group.map(trainings["base_hash"].first()))


def _drop_trials(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without the tuning rows whose options lost: the private rows of their method, ε and k have others."""
    point = ["method", "epsilon", "embedding_dim"]
    private = rows[rows["split"] == "private"]
    decided = pd.MultiIndex.from_frame(rows[point]).isin(pd.MultiIndex.from_frame(private[point]))
    point.append("options")
    chosen = pd.MultiIndex.from_frame(rows[point]).isin(pd.MultiIndex.from_frame(private[point]))
    return rows[~decided | chosen]


def _name_variants(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the column ``variant``: the options in which the rows of a method differ, such as ``rank=4``."""
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

    Private results never choose. Among the k of the private rows, the best by the headline metric on those tuning
    points that every k has run is shown; without such points the most frequent one (of several, the smallest).
    """
    private = rows[rows["split"] == "private"]
    shown = rows if private.empty else private
    tuning = rows[(rows["split"] == "tuning") & rows["embedding_dim"].isin(shown["embedding_dim"])]
    if shown["embedding_dim"].nunique() > 1 and tuning["embedding_dim"].nunique() == shown["embedding_dim"].nunique():
        wide = tuning.pivot_table(index=["task", "epsilon", *SEEDS], columns="embedding_dim", values=HEADLINE).dropna()
        if len(wide):
            return int(wide.columns[int(np.argmax(direction(HEADLINE).sign * wide.mean()))]), True
    return int(shown["embedding_dim"].mode().min()), False


def per_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Long frame of one value for each metric, point, training and draw, with `REAL` as a method and means as tasks."""
    metrics = known_metrics(rows.columns[rows.notna().any()])
    real = rows.drop_duplicates(["split", "task", *SEEDS]).assign(
        role="reference",
        method=REAL,
        variant="",
        embedding_dim=0,
        private=False,
        selection="non_private",
        doubted=False,
    )
    real = real.assign(epsilon=math.inf, **{name: real.get(f"real_{name}", math.nan) for name in metrics})
    keys = [*POINT, *SEEDS]
    known = [*keys, "doubted"]
    long = pd.concat([rows, real])[[*known, *metrics]].melt(id_vars=known, var_name="metric").dropna(subset="value")
    long = long.groupby([*keys, "metric"]).agg(value=("value", "mean"), doubted=("doubted", "any")).reset_index()
    place = [key for key in [*keys, "metric"] if key != "task"]
    over_tasks, development = [], rows.loc[rows["development"], "task"]
    for _, part in long.groupby("split"):
        others = part[~part["task"].isin(development)]
        for mean, counted in {ALL: part, **({OTHERS: others} if len(others) < len(part) else {})}.items():
            value = counted.pivot(index=place, columns="task", values="value").dropna().mean(axis=1).rename("value")
            whole = counted.groupby(place)["doubted"].any().reindex(value.index)
            over_tasks.append(pd.concat([value, whole], axis=1).reset_index().assign(task=mean))
    return pd.concat([*over_tasks, long], ignore_index=True).astype({"doubted": bool})
