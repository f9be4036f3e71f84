"""Whether the ceilings of a section are ceilings: warnings, one sentence each, for the verdict and the page.

A ceiling that goes little of the way to real images measures the target and not privacy, and one that falls with more
steps is no ceiling. Only the headline metric is asked, and what has no rows is not warned of.
"""

import json

import numpy as np
import pandas as pd

from dphyper.metrics.metric import HEADLINE
from dphyper.reports.aggregate import paired_difference
from dphyper.reports.measures import direction
from dphyper.reports.sections import MEANS, Section
from dphyper.reports.style import look, number_format, records
from dphyper.reports.tables.way_to_real import ways_to_real

ENOUGH = 0.5  # of the way to real images: below it, more is lost to the target than any method can lose to privacy
FALLING = 0.05  # of what is left to real images: less than that moves no share of the way by much


def warnings(section: Section) -> list[str]:
    """All warnings on the ceilings of a section; empty where nothing is wrong, or nothing can be told."""
    return [*_weak(section), *_falling(section)]


def _weak(section: Section) -> list[str]:
    ways = ways_to_real(section)
    ways = ways[(ways["metric"] == HEADLINE) & ~ways["task"].isin(MEANS)].drop_duplicates(["split", "task"])
    weak = ways[ways["ceiling"] < ENOUGH]
    if weak.empty:
        return []
    told = [
        f"{section.title(row.split, row.task)} ({look(row.ceiling_method).label}: {100 * row.ceiling:.0f}%)"
        for row in records(weak)
    ]
    return [
        f"The target is too weak to tell methods apart on {len(weak)} of {len(ways)} tasks: the best ceiling goes less "
        f"than half of the way from the public model to real images on {', '.join(told)}."
    ]


def _falling(section: Section) -> list[str]:
    """One sentence for each ceiling whose last increase of ``steps``, all else equal, made it clearly better."""
    rows = section.ceilings.assign(value=section.ceilings[HEADLINE])
    options = [json.loads(text) for text in rows["options"]]
    rows["steps"] = [given.pop("steps", np.nan) for given in options]
    rows["others"] = [json.dumps(given) for given in options]
    form, found = number_format(section), dict[str, list[str]]()
    for (method, _, split, task), part in rows.groupby(["method", "others", "split", "task"]):
        steps = sorted(part["steps"].dropna().unique())[-2:]
        if len(steps) < 2:
            continue
        fewer, more = (part[part["steps"] == count] for count in steps)
        if _clearly_better(more, fewer):
            means = " to ".join(form.value(side["value"].mean()) for side in (fewer, more))
            told = f"{section.title(str(split), str(task))} ({means} from {steps[0]:g} to {steps[1]:g} steps)"
            found.setdefault(str(method), []).append(told)
    return [
        f"{look(method).label} still gets better with more steps, so that it is no ceiling yet: {', '.join(told)}."
        for method, told in found.items()
    ]


def _clearly_better(more: pd.DataFrame, fewer: pd.DataFrame) -> bool:
    """Better by `FALLING` of what is left to real images, and beyond the interval where there is one."""
    gain, sign = paired_difference(more, fewer), direction(HEADLINE).sign
    left = abs((fewer["value"] - fewer[f"real_{HEADLINE}"]).mean())
    within = np.isfinite(gain.half) and gain.sign != sign
    return bool(sign * gain.mean > FALLING * left and not within)
