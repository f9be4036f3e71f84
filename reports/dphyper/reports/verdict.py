"""What the rows say about the hypernetwork, in plain sentences, its defeats first.

Every sentence is made from paired differences of `differences`; none is written by hand for a result. "Better" and
"worse" mean that a 95% interval excludes 0, "no difference shown" is not a proof of equality, and a statement whose
rows are missing says which.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from dphyper.reports.aggregate import ALL, REAL, Interval, Section, aggregate, at_every_epsilon, paired
from dphyper.reports.style import digits, epsilon, look, named, number, records

HYPERNETWORK = "hypernetwork"
RIVALS = ("public_mean", "public_only", "dp_sgd")
NOT_RUN, ONE_SEED, TIED, BETTER, WORSE = "not run", "one seed, no interval", "no difference shown", "better", "worse"
TONES = {BETTER: "good", WORSE: "bad", TIED: "open", ONE_SEED: "missing", NOT_RUN: "missing"}


class Line(NamedTuple):
    """A sentence and its tone: "good", "bad", "open" or "missing"."""

    tone: str
    text: str


class Paragraph(NamedTuple):
    """A titled list of sentences."""

    title: str
    lines: list[Line]


def word(gap: Interval) -> str:
    """The verdict on a paired difference of distances, lower being better.

    >>> word(Interval(-3.0, 1.0, 5)), word(Interval(-3.0, 4.0, 5)), word(Interval(-3.0, float("nan"), 1))
    ('better', 'no difference shown', 'one seed, no interval')
    """
    return {0: NOT_RUN, 1: ONE_SEED}.get(gap.seeds, {-1: BETTER, 0: TIED, 1: WORSE}[gap.sign])


def differences(section: Section) -> pd.DataFrame:
    """The hypernetwork minus each rival, paired by seed, at each finite ε.

    Rivals are `RIVALS` and every other private method of the section. Columns: ``metric``, ``split``, ``task``,
    ``epsilon``, ``series``, ``rival``, ``rival_method``, ``difference``, ``half``, ``low``, ``high``, ``seeds`` (that
    both have), ``verdict`` and ``doubted`` (of one of them). A rival that was not run has its rows, with the verdict
    `NOT_RUN`.
    """
    values = named(at_every_epsilon(section))
    values = values[np.isfinite(values["epsilon"])]
    own = values[(values["method"] == HYPERNETWORK) & (values["role"] == "method")]
    others = values.loc[(values["role"] == "method") & (values["method"] != HYPERNETWORK), "method"]
    place = ["metric", "split", "task", "epsilon"]
    rows = []
    for method in dict.fromkeys([*RIVALS, *others]):
        theirs = values[values["method"] == method]
        for rival in theirs["series"].unique() if len(theirs) else [look(method).label]:
            points = dict(iter(theirs[theirs["series"] == rival].groupby(place)))
            for key, mine in own.groupby([*place, "series"], sort=False):
                other = points.get(key[:-1], theirs.head(0))
                gap, doubted = paired(mine, other), bool(mine["doubted"].any() or other["doubted"].any())
                rows.append((*key, rival, method, *gap, gap.mean - gap.half, gap.mean + gap.half, word(gap), doubted))
    numbers = ["difference", "half", "seeds", "low", "high"]
    names = [*place, "series", "rival", "rival_method", *numbers, "verdict", "doubted"]
    return pd.DataFrame(rows, columns=names).astype({"doubted": bool})


def verdict(section: Section, gaps: pd.DataFrame) -> list[Paragraph]:
    """All paragraphs on one section; ``gaps`` is `differences` of it."""
    gaps = gaps[gaps["metric"] == "frechet"]
    gaps = gaps.sort_values("task", key=lambda task: task.where(task != ALL, ""), kind="stable")
    private, tuning = (
        gaps[(gaps["split"] == split) & gaps["task"].isin(section.shown(split))] for split in ("private", "tuning")
    )
    doubted = [Line("bad", section.support)] if section.support else []
    told = (
        [
            Paragraph("In short", [*doubted, *_in_short(private)]),
            Paragraph("Where the hypernetwork loses", _losses(section, private)),
            Paragraph("Task by task", _by_task(section, private)),
        ]
        if len(private)
        else [
            Paragraph(
                "In short", [*doubted, Line("missing", "The hypernetwork has no finished row on a private task.")]
            )
        ]
    )
    return [
        *told,
        Paragraph("Does the hypernetwork learn?", _learning(section, tuning)),
        Paragraph(
            "Sanity",
            [*_ordering(section), *_trend(section), *_flatness(section), *_limits(section), *_trainings(section)],
        ),
    ]


def _in_short(private: pd.DataFrame) -> list[Line]:
    """One line for each rival: how often better, worse or open, over private tasks and budgets."""
    lines = []
    for (series, rival), part in private[private["task"] != ALL].groupby(["series", "rival"], sort=False):
        counts = part["verdict"].value_counts()
        words = [f"{kind} in {counts[kind]}" for kind in TONES if kind in counts]
        text = f"{series} against {rival}, over {len(part)} pairs of task and ε: {', '.join(words)}."
        lines.append(Line(_tone(part["verdict"]), text))
    return lines


def _tone(verdicts: "pd.Series[str]") -> str:
    """The tone of several verdicts; mixed ones are open."""
    tones = {*verdicts.map(TONES)}
    decided = tones & {"good", "bad"}
    return decided.pop() if len(decided) == 1 else "missing" if tones == {"missing"} else "open"


def _losses(section: Section, private: pd.DataFrame) -> list[Line]:
    lost, decimals = private[private["verdict"] == WORSE], digits(section.distances)
    if lost.empty:
        return [Line("open", "No comparison of two seeds or more shows it worse. That is no proof of equality.")]
    lines = []
    for (task, rival), part in lost.groupby(["task", "rival"], sort=False):
        gaps = [f"{number(r.difference, r.half, decimals)} at ε = {epsilon(r.epsilon)}" for r in records(part)]
        title = section.title("private", str(task))
        lines.append(Line("bad", f"{title}: worse than {rival}, by {', by '.join(gaps)}."))
    return lines


def _by_task(section: Section, gaps: pd.DataFrame) -> list[Line]:
    lines, decimals = [], digits(section.distances)
    for (split, task, rival), part in gaps.groupby(["split", "task", "rival"], sort=False):
        told = []
        for kind, same in part.groupby("verdict", sort=False):
            budgets = [
                f"ε = {epsilon(r.epsilon)}" + (f" ({number(r.difference, r.half, decimals)})" if r.seeds else "")
                for r in records(same)
            ]
            told.append(f"{kind} at {', '.join(budgets)}")
        title = section.title(str(split), str(task))
        lines.append(Line(_tone(part["verdict"]), f"{title}, minus {rival}: {'; '.join(told)}."))
    return lines


def _learning(section: Section, tuning: pd.DataFrame) -> list[Line]:
    """Tuning tasks only: they are held out from training as private ones are, and cost no privacy."""
    if tuning.empty:
        return [Line("missing", "The hypernetwork has no finished row on a tuning task, so this cannot be told.")]
    noiseless = _compare(section, "tuning", "hypernetwork_sigma0", "public_mean")
    answer = {
        "good": "Yes: without noise, its embedding of a held-out dataset beats the public mean.",
        "bad": "No: even without noise, its embedding of a held-out dataset does worse than the public mean.",
        "open": "Not shown: without noise, its embedding of a held-out dataset is not told from the public mean.",
        "missing": "Cannot be told without noise.",
    }[noiseless.tone]
    controls = tuning[
        (tuning["task"] == section.shown("tuning")[0]) & tuning["rival_method"].isin(["public_mean", "public_only"])
    ]
    return [Line(noiseless.tone, f"{answer} {noiseless.text}"), *_by_task(section, controls)]


def _mean_of_tasks(section: Section, split: str) -> pd.DataFrame:
    values = section.values
    return values[(values["metric"] == "frechet") & (values["split"] == split) & (values["task"] == ALL)]


def _compare(section: Section, split: str, first: str, second: str) -> Line:
    """How one series without ε compares with another on the mean over the tasks of a split."""
    values = _mean_of_tasks(section, split)
    names = f"{look(first).label} against {look(second).label}, mean of {split} tasks"
    sides = [values[values["method"] == method] for method in (first, second)]
    for method, side in zip((first, second), sides, strict=True):
        if side.empty:
            return Line("missing", f"{names}: no seed of {method} has every task.")
        if side["seed"].duplicated().any():
            return Line("missing", f"{names}: {method} ran in several variants, see the tables.")
    gap = paired(*sides)
    text = f"{names}: {word(gap)} ({number(gap.mean, gap.half, digits(section.distances))})."
    return Line(TONES[word(gap)], text)


def _ordering(section: Section) -> list[Line]:
    """The ceiling lies below the floor, and no private method below the ceiling."""
    lines = [_compare(section, "private", "nonprivate_lora", "public_only")]
    points = named(aggregate(_mean_of_tasks(section, "private")))
    ceiling = points.loc[points["role"] == "ceiling", "mean"].max()
    lines += [
        Line("open", f"{row.series} at ε = {epsilon(row.epsilon)} has a lower mean than the ceiling: distrust that.")
        for row in records(points[points["private"] & (points["mean"] < ceiling)])
    ]  # fmt: skip
    return lines


def _trend(section: Section) -> list[Line]:
    """DP-SGD against public only: the noisier, the nearer, unless the noise does harm."""
    points = named(aggregate(_mean_of_tasks(section, "private")))
    floor = points.loc[points["method"] == "public_only", "mean"]
    curve = points[(points["method"] == "dp_sgd") & np.isfinite(points["epsilon"])]
    if floor.empty or curve["epsilon"].nunique() < 2:
        return [Line("missing", "DP-SGD as ε falls: needs public_only and two budgets of dp_sgd with every task.")]
    lines = []
    for series, part in curve.groupby("series"):
        gaps, decimals = part.set_index("epsilon")["mean"] - floor.iloc[0], digits(section.distances)
        low, high = gaps.index.min(), gaps.index.max()
        near = abs(gaps[low]) <= abs(gaps[high])
        sides = [
            f"{abs(gaps[budget]):.{decimals}f} {'above' if gaps[budget] > 0 else 'below'} it at ε = {epsilon(budget)}"
            for budget in (high, low)
        ]
        trend = "approaches" if near else "moves away from"
        text = f"{series} {trend} public only as ε falls: its mean is {' and '.join(sides)}."
        lines.append(Line("good" if near else "open", text))
    return lines


def _flatness(section: Section) -> list[Line]:
    """Public mean sees no private record, so ε must not matter to it."""
    values = _mean_of_tasks(section, "private")
    values = values[values["method"] == "public_mean"]
    if values.empty:
        return [Line("missing", "Public mean: no seed has every private task.")]
    low, high = values["epsilon"].min(), values["epsilon"].max()
    if low == high:
        return [Line("good", "Public mean is flat in ε by construction: it has one number, which every ε shares.")]
    gap = word(paired(values[values["epsilon"] == low], values[values["epsilon"] == high]))
    tone = {TIED: "good", BETTER: "bad", WORSE: "bad"}.get(gap, "missing")
    return [Line(tone, f"Public mean at ε = {epsilon(low)} against itself at ε = {epsilon(high)}: {gap}.")]


def _limits(section: Section) -> list[Line]:
    """Nothing beats real images, and nobody overspends.

    Real images are judged by the kernel distance, which is unbiased: the Fréchet distance of real to real, at half the
    images, is above that of perfect samples.
    """
    values = named(section.values)
    values = values[(values["metric"] == "kernel") & (values["split"] == "private") & (values["task"] == ALL)]
    if values.empty:
        return [Line("missing", "Real versus real and the budgets: no private task.")]
    real, others = values[values["method"] == REAL], values[values["method"] != REAL]
    below = [str(key[0]) for key, part in others.groupby(["series", "epsilon"]) if paired(part, real).sign < 0]
    rows = section.rows[section.rows["private"] & np.isfinite(section.rows["epsilon"])]
    over = rows.loc[rows["epsilon_spent"] > rows["epsilon"] * (1 + 1e-6), "cell"]
    return [
        Line(
            "bad", f"Below real versus real in kernel distance, too good to be true: {', '.join(dict.fromkeys(below))}."
        )
        if below
        else Line("good", "No method is shown below real versus real in kernel distance."),
        Line("bad", f"Rows that spent more than their budget: {len(over)}, the first in cell {over.iloc[0]}.")
        if len(over)
        else Line("good", "No row shown here spent more than its budget, by its own ledger."),
    ]


def _trainings(section: Section) -> list[Line]:
    """Whether the cells of a series share one training of its public phase; its running time tells trainings apart."""
    rows = named(section.rows[section.rows["seconds_public"] > 0])
    trainings = rows.groupby("series")["seconds_public"].nunique()
    return [
        Line("open", f"The cells of {series} come from {count} trainings of its public phase, which its means mix.")
        for series, count in trainings[trainings > 1].items()
    ]
