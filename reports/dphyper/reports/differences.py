"""The hypernetwork against its rivals: paired differences, each with a verdict in words.

"Better" and "worse" mean that a 95% interval excludes 0, and "no difference shown" is no proof of equality.
"""

import math
from functools import lru_cache

import numpy as np
import pandas as pd

from dphyper.reports.aggregate import Interval, at_every_epsilon, paired_difference
from dphyper.reports.measures import direction
from dphyper.reports.sections import Section
from dphyper.reports.style import add_names, look

HYPERNETWORK = "hypernetwork"
RIVALS = ("public_mean", "public_only", "dp_sgd")  # told of even where they were not run
NOT_RUN, ONE_SEED, TIED, BETTER, WORSE = "not run", "one seed, no interval", "no difference shown", "better", "worse"


def verdict_on(gap: Interval, metric: str) -> str:
    """The verdict on a paired difference of a metric: how the first side compares with the second.

    >>> verdict_on(Interval(-3.0, 1.0, 5), "frechet"), verdict_on(Interval(-3.0, 4.0, 5), "frechet")
    ('better', 'no difference shown')
    >>> verdict_on(Interval(-3.0, float("nan"), 1), "frechet")
    'one seed, no interval'
    """
    if math.isnan(gap.half):
        return ONE_SEED if gap.seeds else NOT_RUN
    return {1: BETTER, 0: TIED, -1: WORSE}[direction(metric).sign * gap.sign]


@lru_cache(maxsize=1)  # the page, the verdict and a table ask for the same section in turn; they change no frame
def differences(section: Section) -> pd.DataFrame:
    """The hypernetwork minus each rival, paired by training and draw, at each finite ε.

    Rivals are `RIVALS` and every other private method of the section. A rival that was not run has its rows too, with
    the verdict `NOT_RUN`.

    Returns:
        One row for each metric, place, series of the hypernetwork and series of a rival. Columns: ``metric``,
        ``split``, ``task``, ``epsilon``, ``series``, ``rival``, ``rival_method``, ``difference``, ``half``, ``seeds``
        and ``trainings`` (that both have), ``p`` (`Interval.p`), ``low``, ``high``, ``verdict`` and ``doubted`` (of one
        of them).
    """
    values = add_names(at_every_epsilon(section))
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
                gap, doubted = paired_difference(mine, other), bool(mine["doubted"].any() or other["doubted"].any())
                said = verdict_on(gap, key[0])
                rows.append((*key, rival, method, *gap, gap.mean - gap.half, gap.mean + gap.half, said, doubted))
    numbers = ["difference", "half", "seeds", "trainings", "p", "low", "high"]
    names = [*place, "series", "rival", "rival_method", *numbers, "verdict", "doubted"]
    return pd.DataFrame(rows, columns=names).astype({"doubted": bool})
