"""The estimated subspace, against the first-order theory of its error."""

from collections.abc import Callable
from typing import Any

import torch

from dphyper.studies.theory.knowledge import learn_from_public_tasks


def test_subspace_comes_from_public_moments(small_world: Callable[..., Any]) -> None:
    d, k, m, tasks = 20, 2, 128, 1000
    small = small_world(tasks)
    leak = 1 - float((small.public.basis_dk.T @ small.world.basis_dk).square().sum()) / k
    # d k v (1 + v k / m) / (m T), half to twice.
    predicted = (d - k) * k * 1.25 / (m * tasks) * (1 + 1.25 * k / m)
    assert predicted / 2 < leak < 2 * predicted


def test_what_is_learned_does_not_depend_on_the_chunks(small_world: Callable[..., Any], monkeypatch: Any) -> None:
    small = small_world(40)
    monkeypatch.setattr("dphyper.studies.theory.knowledge.CHUNK_VALUES", 7 * 128 * 20)
    chunks = list(small.records_Tmd1.split(7))
    again = learn_from_public_tasks(lambda num: chunks.pop(0), tasks=40, size=128, k=2, d=20)
    assert not chunks
    torch.testing.assert_close(again.mean_d, small.public.mean_d)
    torch.testing.assert_close(again.x_Md, small.public.x_Md)
    assert abs(again.embedding_scale - small.public.embedding_scale) < 1e-4
