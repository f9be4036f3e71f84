"""Worlds of the theory: the angle of private tasks, and an excess risk that needs no test set."""

import math

import pytest
import torch

from dphyper.studies.theory.regression import LinearRegression
from dphyper.studies.theory.worlds import LinearWorld, excess_risk


@pytest.mark.parametrize("angle", [0.0, 20.0, 90.0])
def test_private_tasks_lie_at_the_angle(angle: float) -> None:
    world = LinearWorld(d=10, k=3, noise_std=0.1, seed=0)
    w_Bd = world.draw_weights(50, angle=angle)
    torch.testing.assert_close(w_Bd.norm(dim=1), torch.ones(50))
    inside_B = (w_Bd @ world.basis_dk).norm(dim=1)
    torch.testing.assert_close(inside_B, torch.full((50,), math.cos(math.radians(angle))), atol=1e-5, rtol=0)


def test_a_seed_fixes_every_draw_and_no_draw_is_repeated() -> None:
    def draws(seed: int) -> list[torch.Tensor]:
        world = LinearWorld(d=6, k=2, noise_std=0.5, seed=seed)
        return [world.draw_records(world.draw_weights(5), 50).flatten(0, 1) for _ in range(2)]

    first, again, other = draws(0), draws(0), draws(1)
    assert torch.equal(torch.cat(first), torch.cat(again))
    assert not torch.equal(first[0], other[0])
    assert len(torch.cat(first).unique(dim=0)) == 500


def test_excess_risk_equals_monte_carlo() -> None:
    world = LinearWorld(d=5, k=2, noise_std=0.3, seed=1)
    w_Bd, guess_d = world.draw_weights(1), torch.tensor([0.3, -0.1, 0.2, 0.0, 0.4])
    target = LinearRegression(5)
    records = world.draw_records(w_Bd, 400_000)[0]
    gap = target.per_example_loss(guess_d, records, None) - target.per_example_loss(w_Bd[0], records, None)
    # The loss is half the squared error.
    mean, error = 2 * float(gap.mean()), 2 * float(gap.std()) / math.sqrt(len(records))
    risk = float(excess_risk(guess_d[None, None], w_Bd))
    assert abs(mean - risk) < 4 * error < 0.1 * risk
