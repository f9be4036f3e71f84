"""Guards: each shown to find what it is for, and nothing in what is sound."""

import numpy as np
import torch
from torch import Tensor

from dphyper.audits import guards


def test_noise_scale_rejects_the_right_scale_in_the_wrong_shape() -> None:
    rng = np.random.default_rng(0)
    assert guards.noise_scale(rng.normal(0, 1, 5000), 1.0) is None
    assert guards.noise_scale(rng.uniform(-(3**0.5), 3**0.5, 5000), 1.0) is not None
    assert guards.noise_scale(rng.normal(0.3, (1 - 0.09) ** 0.5, 5000), 1.0) is not None


def test_record_wise_accepts_networks_and_rejects_attention() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3, 8, 8)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.GroupNorm(2, 8), torch.nn.Flatten(), torch.nn.LazyLinear(4)
    ).eval()
    normalised = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Flatten())

    def attention(images: Tensor) -> Tensor:
        tokens = images.flatten(1)
        return (tokens @ tokens.T / 100).softmax(1) @ tokens

    assert guards.record_wise(network, x) is None
    assert guards.record_wise(normalised.train(), x) is not None
    assert guards.record_wise(normalised.eval(), x) is None
    assert guards.record_wise(attention, x) is not None
    assert guards.record_wise(lambda images: images.flatten(1).cumsum(0), x) is not None
    assert guards.record_wise(lambda images: images.flatten(1) / len(images), x) is not None


def test_order_invariant_rejects_a_weighted_sum() -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert guards.order_invariant(lambda rows: (rows * 2**30).round().sum(0), x) is None
    assert guards.order_invariant(lambda rows: (rows * torch.arange(5)[:, None]).sum(0), x) is not None
