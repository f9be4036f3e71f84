"""Guards: each shown to find what it is for, and nothing in what is sound."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dphyper.audits import guards
from dphyper.audits.planted import Planted, planted_releases, planted_table

# Each bug that was read in published code, and the guard that has to catch it.
EXPECTED = {
    "micro-batches of four": "sensitivity",
    "second moment with half the sensitivity": "sensitivity",
    "realised instead of the expected batch": "sensitivity",
    "C/n of the mean under add-or-remove-one": "sensitivity",
    "augmented four times": "sensitivity",
    "spread evenly over the batch": "noise_scale",
    "seed fixed": "fresh_noise",
    "shuffled batches": "poisson_sampling",
    "noise added before clipping": "noise_scale",
    "no noise": "noise_scale",
    "noise for the sum alone": "noise_scale",
    "count released without noise": "noise_scale",
    "largest of the private norms": "record_wise",
    "batch normalisation": "record_wise",
    "with all its digits": "on_grid",
    "noise drawn in float32": "double_precision",
    "seeded with 16 bits": "fresh_sources",
    "depend on the size of the batch": "batch_sizes",
    "as many trials run as count": "constant_work",
    "taken off the ledger": "failures_cost",
}


@pytest.fixture(scope="module")
def planted() -> list[Planted]:
    return planted_releases()


def test_every_planted_bug_is_caught_by_its_guard(planted: list[Planted]) -> None:
    assert len(planted) == len(EXPECTED)
    for name, guard in EXPECTED.items():
        (found,) = [p for p in planted if name in p.bug]
        assert found.guard == guard
        assert found.finding is not None, f"{guard} missed: {found.bug}"
        assert found.sound is None, f"{guard} rejects the sound release: {found.sound}"


def test_planted_table_has_a_line_for_each(planted: list[Planted]) -> None:
    lines = planted_table(planted).splitlines()
    assert len(lines) == len(EXPECTED)
    assert all(line.startswith("caught") for line in lines)


def test_a_guard_that_sees_nothing_shows_as_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    def noise_scale(*_: object) -> None:
        return None

    monkeypatch.setattr(guards, "noise_scale", noise_scale)
    assert sum(line.startswith("MISSED") for line in planted_table(planted_releases()).splitlines()) == 5


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
