"""The one loop of short fits, against Adam's formula in numpy."""

import numpy as np
import torch
from torch import Tensor

from dphyper.methods.optimisation import linear_decay, minimise


def test_minimise_is_adam_with_a_rate_that_falls_to_a_tenth() -> None:
    """Kingma & Ba 2015, algorithm 1, with the rate of step t being (1 − 0.9 t / T) times the first."""

    def wanted(final: float) -> np.ndarray:
        theta, first, second = np.zeros(2), np.zeros(2), np.zeros(2)
        for t in range(5):
            gradient = theta - np.array([1.0, -3.0])
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            step = first / (1 - 0.9 ** (t + 1)) / (np.sqrt(second / (1 - 0.999 ** (t + 1))) + 1e-8)
            theta = theta - 0.2 * (1 - (1 - final) * t / 5) * step
        return theta

    start = torch.zeros(2)

    def loss(theta: Tensor) -> Tensor:
        return 0.5 * (theta - torch.tensor([1.0, -3.0])).square().sum()

    with torch.no_grad():  # `adapt` may run so
        found = minimise(loss, start, steps=5, learning_rate=0.2)
    np.testing.assert_allclose(found.numpy(), wanted(0.1), rtol=1e-4)
    assert np.abs(found.numpy() - wanted(1.0)).max() > 0.01
    assert not found.requires_grad
    assert not start.any()  # where it began is left as it was


def test_decay_ends_at_a_tenth_of_the_first_rate_and_stays_there() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = linear_decay(optimizer, 4)
    rates = []
    for _ in range(6):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, [2.0, 1.55, 1.1, 0.65, 0.2, 0.2])
