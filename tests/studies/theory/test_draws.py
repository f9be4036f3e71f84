"""Streams of their own for every purpose; the learned network meets the records of its subspace and no other."""

import pytest
import torch

from dphyper.studies.theory import draws
from dphyper.studies.theory.draws import learn_public, make_world
from dphyper.studies.theory.knowledge import learn_from_public_tasks
from dphyper.studies.theory.points import Point


def test_a_world_has_one_subspace_and_a_stream_for_each_purpose() -> None:
    point = Point(d=12, k=2)
    first, again, other = (make_world(point, 0, purpose) for purpose in ("tuning", "tuning", "private 64"))
    assert torch.equal(first.basis_dk, other.basis_dk)
    weights = first.draw_weights(3)
    assert torch.equal(weights, again.draw_weights(3))
    assert not torch.equal(weights, other.draw_weights(3))
    assert not torch.equal(first.basis_dk, make_world(point, 1, "tuning").basis_dk)


def test_learned_form_meets_the_records_of_its_subspace(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[torch.Tensor] = []
    monkeypatch.setattr(draws, "meta_train", lambda records, *args, **kwargs: met.append(records))
    centre = Point(d=12, k=2, public_tasks=40, public_size=64)
    monkeypatch.setattr(draws, "CENTRE", centre)
    draws.train_network.__wrapped__(0)
    public = learn_public(centre, 0)

    def subspace(records: torch.Tensor) -> torch.Tensor:
        return learn_from_public_tasks(lambda num: records, tasks=40, size=64, k=2, d=12).basis_dk

    torch.testing.assert_close(subspace(met[0]), public.basis_dk)
    world = make_world(centre, 0, "other")
    other = subspace(world.draw_records(world.draw_weights(40), 64))
    assert float((other @ other.T - public.basis_dk @ public.basis_dk.T).norm()) > 0.01
