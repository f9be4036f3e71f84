"""DOPE-SGD around zero is DP-SGD; around a public gradient it clips, and adds back, that gradient."""

import math
from typing import Any

import pytest
import torch

from dphyper.privacy.budget import Budget, Relation

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
TIGHT = Budget(epsilon=4.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
WHOLE = {"public_tasks": 1, "public_images": 30}
"""The public gradient over all public records, which no draw can change."""


@pytest.mark.parametrize("sampling_prob", [1.0, 0.4])
def test_dope_around_zero_is_dp_sgd(sampling_prob: float, stretched: Any, equal_only: Any) -> None:
    found = stretched.adapt("dope_sgd", TIGHT, public=torch.zeros(30, 6), sampling_prob=sampling_prob)
    plain = stretched.adapt("dp_sgd", TIGHT, sampling_prob=sampling_prob)
    equal_only(found, plain, stretched.adapt("dope_sgd", TIGHT, sampling_prob=sampling_prob))


def test_dope_without_clipping_is_gradient_descent_whatever_the_public_gradient(stretched: Any) -> None:
    """What was subtracted is added back; clipped around h instead of around 0, the two differ."""
    wide, tight = {"l2_clip_norm": 1e6}, {"l2_clip_norm": 1.0}
    torch.testing.assert_close(
        stretched.adapt("dope_sgd", FREE, **wide), stretched.adapt("dp_sgd", FREE, **wide), rtol=1e-4, atol=1e-6
    )
    assert not torch.allclose(
        stretched.adapt("dope_sgd", FREE, **tight), stretched.adapt("dp_sgd", FREE, **tight), rtol=0.01
    )


def test_dope_adds_back_what_no_record_can_change(stretched: Any, equal_only: Any) -> None:
    """An empty batch leaves h itself; a coefficient |batch| / (q n) would leave nothing."""
    made, zero = stretched.guide("dope_sgd", **WHOLE), torch.zeros(5)
    made.prepare(zero, 0)
    public = stretched.public
    h = -(public[:, 5:] * public[:, :5]).mean(0)
    equal_only(made.gradient(zero), h, zero)
