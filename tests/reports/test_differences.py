"""Paired differences between the hypernetwork and its rivals."""

import numpy as np
import pytest
from scipy import stats
from toy_store import point

from dphyper.reports.aggregate import Interval
from dphyper.reports.differences import differences, verdict_on
from dphyper.reports.sections import Section


def test_a_paired_difference_is_the_t_interval_of_the_pairs(section: Section) -> None:
    row = point(differences(section), metric="frechet", task="kettle", epsilon=1.0, rival_method="dp_sgd")
    pairs = np.array([(42 + a) - (70 + b) for a, b in zip((0, 1, -0.7), (1, -0.7, 0), strict=True)])
    low, high = stats.ttest_1samp(pairs, 0).confidence_interval(0.95)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((pairs.mean(), low, high))
    assert row["verdict"] == "better"


@pytest.mark.parametrize(("metric", "expected"), [("frechet", "better"), ("coverage", "worse")])
def test_what_is_better_follows_the_metric(metric: str, expected: str, coverage: str) -> None:
    assert verdict_on(Interval(-3.0, 1.0, 5), metric) == expected
    assert verdict_on(Interval(-3.0, 4.0, 5), metric) == "no difference shown"
    assert verdict_on(Interval(-3.0, float("nan"), 1), metric) == "one seed, no interval"


def test_every_metric_is_compared(section: Section) -> None:
    assert {*differences(section)["metric"]} == {"frechet", "kernel"}
