"""Adam and the step-size schedule that every short fit and every private descent share.

The learning rate falls linearly from its first value to a tenth of it over the run. Guarantees that two fits that draw
from equal generators take equal steps. Nothing here stops early or holds a record out.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# The learning rate of the last step over that of the first.
FINAL_RATE = 0.1


def linear_decay(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LinearLR:
    """The schedule under which the learning rate falls linearly to `FINAL_RATE` of its first value.

    Args:
        optimizer: Its present learning rate is that of the first step.
        steps: Steps of the whole run, at least 1.

    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = linear_decay(optimizer, steps=2)
    >>> for _ in range(2):
    ...     optimizer.step()
    ...     schedule.step()
    >>> round(schedule.get_last_lr()[0], 6)
    0.1
    """
    return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, FINAL_RATE, total_iters=steps)


@torch.enable_grad()
def minimise(loss: Callable[[Tensor], Tensor], theta: Tensor, *, steps: int, learning_rate: float) -> Tensor:
    """Minimise a loss by Adam with `linear_decay`.

    Args:
        loss: Parameters to a scalar; called once for each step, so it may draw a new batch each time.
        theta: Where to begin, of any shape; it is left as it is.
        steps: Steps of Adam, at least 1.
        learning_rate: Of the first step.

    Returns:
        The last iterate, of the shape of ``theta``.

    >>> found = minimise(lambda theta: (theta - 3.0).square().sum(), torch.zeros(1), steps=200, learning_rate=0.1)
    >>> round(float(found), 3)
    3.0
    """
    theta = theta.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([theta], lr=learning_rate)
    schedule = linear_decay(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(theta).backward()
        optimizer.step()
        schedule.step()
    return theta.detach()
