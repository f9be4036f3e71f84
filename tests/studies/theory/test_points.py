"""The plan of the theory study: long enough axes, enough runs."""

import math

from dphyper.studies.theory.experiment import DRAWS, TASKS, WORLDS
from dphyper.studies.theory.points import plan_points


def test_axes_cover_four_octaves_and_enough_runs() -> None:
    plan = [*plan_points()]
    for axis in ("n", "epsilon", "d", "k"):
        values = [value for name, point in plan if name == axis and math.isfinite(value := getattr(point, axis))]
        assert math.log2(max(values) / min(values)) >= 4, axis
    # Nine noisy methods at the least, and every draw is a run.
    assert len({point for _, point in plan}) * 9 * WORLDS * TASKS * DRAWS >= 20_000
