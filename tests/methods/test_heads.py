"""Heads of the hypernetwork: all begin at the public model, and all can be trained away from it."""

import pytest
import torch

from dphyper.core.errors import UserError
from dphyper.methods.heads import HEADS, new_head

SHAPES = [(4, 2), (3, 5), (6, 1)]


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_starts_at_zero_and_learns(kind: str) -> None:
    torch.manual_seed(0)
    head, hidden = new_head(kind, 8, SHAPES, 3), torch.randn(2, 8)
    assert head(hidden).shape == (2, 29)
    assert not head(hidden).any()
    wanted = torch.randn(2, 29)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
    for _ in range(300):
        optimizer.zero_grad()
        (head(hidden) - wanted).square().mean().backward()
        optimizer.step()
    assert float((head(hidden) - wanted).detach().square().mean()) < 1e-2


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(UserError, match=r"options\.head = 'cubic': expected one of linear, basis, layers"):
        new_head("cubic", 8, SHAPES, 3)
