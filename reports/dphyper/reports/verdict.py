"""What the rows say about the hypernetwork, in plain sentences, its defeats first.

Every sentence follows from the numbers by the headline metric; none is written by hand for a result. A sentence whose
rows are missing says which.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from dphyper.metrics.metric import HEADLINE, METRICS
from dphyper.reports.aggregate import aggregate, paired_difference
from dphyper.reports.ceilings import warnings
from dphyper.reports.differences import BETTER, HYPERNETWORK, NOT_RUN, ONE_SEED, TIED, WORSE, differences, verdict_on
from dphyper.reports.measures import direction, metric_label
from dphyper.reports.sections import ALL, MEANS, REAL, SEEDS, Section, support
from dphyper.reports.style import add_names, budget, look, number, number_format, records
from dphyper.reports.tables.way_to_real import ways_to_real

TONES = {BETTER: "good", WORSE: "bad", TIED: "open", ONE_SEED: "missing", NOT_RUN: "missing"}


class Line(NamedTuple):
    """A sentence and its tone: "good", "bad", "open" or "missing"."""

    tone: str
    text: str


class Paragraph(NamedTuple):
    """A titled list of sentences."""

    title: str
    lines: list[Line]


def verdict(section: Section) -> list[Paragraph]:
    """All paragraphs on one section."""
    gaps = differences(section)
    gaps = gaps[gaps["metric"] == HEADLINE]
    gaps = gaps.sort_values("task", key=lambda task: task.where(~task.isin(MEANS), ""), kind="stable")
    private, tuning = (
        gaps[(gaps["split"] == split) & gaps["task"].isin(section.tasks_with_mean(split))]
        for split in ("private", "tuning")
    )
    in_short = [Line("bad", sentence)] if (sentence := support(section.rows)) else []
    paragraphs = [Paragraph("In short", in_short)]
    if private.empty:
        in_short.append(Line("missing", "The hypernetwork has no finished row on a private task."))
    else:
        in_short += [*_way_to_real(section), *_in_short(private)]
        paragraphs.append(Paragraph("Where the hypernetwork loses", _losses(section, private)))
        paragraphs.append(Paragraph("Task by task", _by_task(section, private)))
    checks = (_ordering, _trend, _flatness, _limits, _public_phases)
    return [
        *paragraphs,
        Paragraph("Does the hypernetwork learn?", _learning(section, tuning)),
        Paragraph("Are the ceilings ceilings?", _ceilings(section)),
        Paragraph("Sanity", [line for check in checks for line in check(section)]),
    ]


def _in_short(private: pd.DataFrame) -> list[Line]:
    """One line for each rival: how often better, worse or open, over private tasks and budgets."""
    lines = []
    for (series, rival), part in private[~private["task"].isin(MEANS)].groupby(["series", "rival"], sort=False):
        counts = part["verdict"].value_counts()
        words = [f"{kind} in {counts[kind]}" for kind in TONES if kind in counts]
        text = f"{series} against {rival}, over {len(part)} pairs of task and ε: {', '.join(words)}."
        lines.append(Line(_tone(part["verdict"]), text))
    return lines


def _way_to_real(section: Section) -> list[Line]:
    """How much of the way to real images the hypernetwork goes on private tasks, and how much the ceiling."""
    ways, where = add_names(ways_to_real(section)), section.tasks_with_mean("private")[0]
    ways = ways[(ways["metric"] == HEADLINE) & (ways["split"] == "private") & (ways["task"] == where)]
    lines = []
    for series, part in ways[(ways["method"] == HYPERNETWORK) & (ways["role"] == "method")].groupby("series"):
        told = ", ".join(f"{number(row.way, row.half, 2)} at {budget(row.epsilon)}" for row in records(part))
        reached = part["ceiling"].iloc[0]
        ceiling = f"the best ceiling {reached:.2f}" if np.isfinite(reached) else "no ceiling was run"
        text = f"{series} goes {told} of the way from the public model to real images; {ceiling}"
        lines.append(Line("open", f"{section.title('private', where)}: {text}."))
    return lines


def _ceilings(section: Section) -> list[Line]:
    """The warnings on the ceilings; without one, how far they go."""
    if found := warnings(section):
        return [Line("bad", text) for text in found]
    ways = ways_to_real(section)
    reached = ways.loc[(ways["metric"] == HEADLINE) & ~ways["task"].isin(MEANS), "ceiling"].dropna()
    if reached.empty:
        return [Line("missing", "Cannot be told: needs a ceiling, public_only and the distance of real images.")]
    ends = " to ".join(dict.fromkeys(f"{share:.2f}" for share in (reached.min(), reached.max())))
    return [Line("good", f"The best ceiling goes {ends} of the way from the public model to real images.")]


def _tone(verdicts: "pd.Series[str]") -> str:
    """The tone of several verdicts; mixed ones are open."""
    tones = {*verdicts.map(TONES)}
    decided = tones & {"good", "bad"}
    return decided.pop() if len(decided) == 1 else "missing" if tones == {"missing"} else "open"


def _losses(section: Section, private: pd.DataFrame) -> list[Line]:
    """Every comparison that the hypernetwork loses, and by how much."""
    worse = -direction(HEADLINE).sign
    lost, form = private[private["verdict"] == WORSE], number_format(section)
    if lost.empty:
        return [Line("open", "No comparison with an interval shows it worse. That is no proof of equality.")]
    lines = []
    for (task, rival), part in lost.groupby(["task", "rival"], sort=False):
        gaps = [f"{form.interval(worse * r.difference, r.half)} at {budget(r.epsilon)}" for r in records(part)]
        title = section.title("private", str(task))
        lines.append(Line("bad", f"{title}: worse than {rival}, by {', by '.join(gaps)}."))
    return lines


def _by_task(section: Section, gaps: pd.DataFrame) -> list[Line]:
    """One line for each task and rival: the verdict at each ε."""
    lines, form = [], number_format(section)
    for (split, task, rival), part in gaps.groupby(["split", "task", "rival"], sort=False):
        told = []
        for kind, same in part.groupby("verdict", sort=False):
            budgets = [
                budget(r.epsilon) + (f" ({form.interval(r.difference, r.half)})" if r.seeds else "")
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
        (tuning["task"] == section.tasks_with_mean("tuning")[0])
        & tuning["rival_method"].isin(["public_mean", "public_only"])
    ]
    return [Line(noiseless.tone, f"{answer} {noiseless.text}"), *_by_task(section, controls)]


def _mean_of_tasks(section: Section, split: str) -> pd.DataFrame:
    values = section.values
    return values[(values["metric"] == HEADLINE) & (values["split"] == split) & (values["task"] == ALL)]


def _compare(section: Section, split: str, first: str, second: str) -> Line:
    """How one series without ε compares with another on the mean over the tasks of a split."""
    values = _mean_of_tasks(section, split)
    names = f"{look(first).label} against {look(second).label}, mean of {split} tasks"
    sides = [values[values["method"] == method] for method in (first, second)]
    for method, side in zip((first, second), sides, strict=True):
        if side.empty:
            return Line("missing", f"{names}: no training and draw of {method} has every task.")
        if side.duplicated(SEEDS).any():
            return Line("missing", f"{names}: {method} ran in several variants, see the tables.")
    gap = paired_difference(*sides)
    said = verdict_on(gap, HEADLINE)
    return Line(TONES[said], f"{names}: {said} ({number_format(section).interval(gap.mean, gap.half)}).")


def _ordering(section: Section) -> list[Line]:
    """Is the ceiling better than public data only, and no private method better than the ceiling?"""
    lines = [_compare(section, "private", "nonprivate_lora", "public_only")]
    points = add_names(aggregate(_mean_of_tasks(section, "private")))
    towards = direction(HEADLINE)
    good = towards.sign * points["mean"]
    beyond = points["private"] & (good > good[points["role"] == "ceiling"].min())
    lines += [
        Line(
            "open",
            f"{row.series} at {budget(row.epsilon)} has a {towards.better} mean than the ceiling: distrust that.",
        )
        for row in records(points[beyond])
    ]
    return lines


def _trend(section: Section) -> list[Line]:
    """Does DP-SGD come nearer to public only as the noise grows? It does unless the noise does harm."""
    points = add_names(aggregate(_mean_of_tasks(section, "private")))
    public = points.loc[points["method"] == "public_only", "mean"]
    curve = points[(points["method"] == "dp_sgd") & np.isfinite(points["epsilon"])]
    if public.empty or curve["epsilon"].nunique() < 2:
        return [Line("missing", "DP-SGD as ε falls: needs public_only and two budgets of dp_sgd with every task.")]
    lines, form = [], number_format(section)
    for series, part in curve.groupby("series"):
        gaps = part.set_index("epsilon")["mean"] - public.iloc[0]
        low, high = gaps.index.min(), gaps.index.max()
        near = abs(gaps[low]) <= abs(gaps[high])
        sides = [
            f"{form.value(abs(gaps[value]))} {'above' if gaps[value] > 0 else 'below'} it at {budget(value)}"
            for value in (high, low)
        ]
        trend = "approaches" if near else "moves away from"
        text = f"{series} {trend} public only as ε falls: its mean is {' and '.join(sides)}."
        lines.append(Line("good" if near else "open", text))
    return lines


def _flatness(section: Section) -> list[Line]:
    """Is public mean flat in ε? It sees no private record, so it must be."""
    values = _mean_of_tasks(section, "private")
    values = values[values["method"] == "public_mean"]
    if values.empty:
        return [Line("missing", "Public mean: no training and draw has every private task.")]
    low, high = values["epsilon"].min(), values["epsilon"].max()
    if low == high:
        return [Line("good", "Public mean is flat in ε by construction: it has one number, which every ε shares.")]
    gap = paired_difference(values[values["epsilon"] == low], values[values["epsilon"] == high])
    said = verdict_on(gap, HEADLINE)
    tone = {TIED: "good", BETTER: "bad", WORSE: "bad"}.get(said, "missing")
    return [Line(tone, f"Public mean at {budget(low)} against itself at {budget(high)}: {said}.")]


def _limits(section: Section) -> list[Line]:
    """Is anything better than real images, and did anyone overspend?

    Unbiased metrics alone can tell the first: the Fréchet distance of real images, at half the number, is above that of
    perfect samples.
    """
    if not section.tasks("private"):
        return [Line("missing", "Real versus real and the budgets: no private task.")]
    unbiased = [metric for metric in section.metrics if METRICS[metric].unbiased]
    return [*(_better_than_real(section, metric) for metric in unbiased), _overspending(section)]


def _better_than_real(section: Section, metric: str) -> Line:
    values = add_names(section.values)
    values = values[(values["metric"] == metric) & (values["split"] == "private") & (values["task"] == ALL)]
    real, others = values[values["method"] == REAL], values[values["method"] != REAL]
    label = metric_label(metric, section.extractor)
    if real.empty:
        return Line("missing", f"Real versus real: no row has the {label} of real images.")
    beyond = [
        str(series)
        for (series, _), part in others.groupby(["series", "epsilon"])
        if verdict_on(paired_difference(part, real), metric) == BETTER
    ]
    side = direction(metric).good_side
    if beyond:
        names = ", ".join(dict.fromkeys(beyond))
        return Line("bad", f"{side.title()} real versus real in {label}, too good to be true: {names}.")
    return Line("good", f"No method is shown {side} real versus real in {label}.")


def _overspending(section: Section) -> Line:
    rows = section.rows[section.rows["private"] & np.isfinite(section.rows["epsilon"])]
    over = rows.loc[rows["epsilon_spent"] > rows["epsilon"] * (1 + 1e-6), "cell"]  # 1e-6 for rounding
    if len(over):
        return Line("bad", f"Rows that spent more than their budget: {len(over)}, the first in cell {over.iloc[0]}.")
    return Line("good", "No row shown here spent more than its budget, by its own ledger.")


def _public_phases(section: Section) -> list[Line]:
    """Do the cells of a series share one public phase for each training? Running times tell public phases apart."""
    rows = add_names(section.rows[section.rows["seconds_public"] > 0])
    phases = rows.groupby(["series", "training"])["seconds_public"].nunique().groupby(level="series", sort=False).max()
    return [
        Line("open", f"The cells of {series} come from {count} runs of its public phase, which its means mix.")
        for series, count in phases[phases > 1].items()
    ]
