"""The analytic form against numpy, and the learned form against the analytic."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dphyper.methods.hypernetwork import HypernetworkOptions
from dphyper.privacy.budget import Budget, Relation
from dphyper.studies.theory.hypernetworks import LinearTasks, adapt_analytic, adapt_learned, meta_train, project
from dphyper.studies.theory.worlds import excess_risk

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
TIGHT = Budget(epsilon=1.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
SIZE = 128


def test_analytic_form_equals_numpy(small_world: Callable[..., Any]) -> None:
    small = small_world()
    x, y, _ = small.draw(2, 200)
    found = adapt_analytic(x, y, small.public, FREE, draws=1, rng=torch.Generator())["hypernetwork"][:, 0]

    basis = small.public.basis_dk.numpy()
    rows = y.numpy()[..., None] * (x.numpy() @ basis)
    clip = np.sqrt(2) * small.public.label_rms
    rows = rows / np.maximum(1, np.linalg.norm(rows, axis=2, keepdims=True) / clip)
    wanted = rows.mean(1) / small.public.embedding_scale @ basis.T
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def test_shrinking_decoder_goes_to_zero_with_the_noise(small_world: Callable[..., Any]) -> None:
    small = small_world()
    x, y, _ = small.draw(4, 50)
    hidden = Budget(epsilon=0.01, delta=1e-5, relation=Relation.ZERO_OUT)  # under which the count is not noisy
    found = adapt_analytic(x, y, small.public, hidden, draws=8, rng=torch.Generator().manual_seed(0))
    assert float(found["hypernetwork_shrunk"][:, :-1].norm(dim=2).max()) < 0.3
    assert float(found["hypernetwork"][:, :-1].norm(dim=2).min()) > 1
    assert float(found["hypernetwork_shrunk"][:, -1].norm(dim=1).min()) > 0.5, "without noise nothing shrinks"


def test_learned_form_comes_within_a_tenth_of_the_analytic(small_world: Callable[..., Any]) -> None:
    """Also where n is far above the public sizes and the decoder's bias is most of what the network adds."""
    small = small_world(400)
    options = HypernetworkOptions(
        train_steps=1000, tasks=24, support=64, query=64, width=64, learning_rate=6e-3, clean_fraction=0.5
    )
    networks = [
        meta_train(small.records_Tmd1, small.public, options, seed=0, rotations=8),
        meta_train(small.records_Tmd1[:20], small.public, options, seed=0, rotations=1),
    ]
    ratios = []
    for size, num in ((SIZE, 400), (1024, 100)):
        x_Bnd, y_Bn, w_Bd = small.draw(num, size)
        records_Bnd1 = torch.cat([x_Bnd, y_Bn[..., None]], dim=2)
        rng = torch.Generator().manual_seed(0)
        analytic = adapt_analytic(x_Bnd, y_Bn, small.public, TIGHT, draws=5, rng=rng)["hypernetwork"]
        found = [adapt_learned(network, records_Bnd1, small.public, TIGHT, draws=5, rng=rng) for network in networks]
        risks = [float(excess_risk(weights[:, :-1], w_Bd).mean()) for weights in (analytic, *found)]
        ratios.append([risk / risks[0] for risk in risks[1:]])
    assert max(good for good, _ in ratios) < 1.1, ratios
    assert max(bad for _, bad in ratios) > 1.5, "a network of twenty tasks must be caught"


def test_rotated_tasks_are_tasks_of_the_same_records(small_world: Callable[..., Any]) -> None:
    small = small_world(10)
    inner = project(small.records_Tmd1, small.public.basis_dk)
    options = HypernetworkOptions(train_steps=3, tasks=4, support=32, query=16)
    tasks = LinearTasks(inner, options, seed=0, rotations=3)
    turned = tasks.records.unflatten(0, (3, 10, SIZE))
    torch.testing.assert_close(turned[..., -1], inner[..., -1].expand(3, -1, -1))
    # One rotation for all records of a task keeps their inner products; one for each record would not.
    gram = inner[..., :-1] @ inner[..., :-1].mT
    torch.testing.assert_close(turned[..., :-1] @ turned[..., :-1].mT, gram.expand(3, -1, -1, -1), atol=1e-4, rtol=0)
    broken = turned[0, :, :, :-1].clone()
    broken[:, 1::2] = turned[1, :, 1::2, :-1]
    assert float((broken @ broken.mT - gram).abs().max()) > 1
    assert float((turned[0] - turned[1]).abs().max()) > 1, "the copies are turned differently"
    episodes = [*tasks.train_dataloader()]
    assert len(episodes) == 3
    for episode in episodes:
        rows = torch.cat([episode.support_TS, episode.query_TQ], dim=1)
        assert (rows // SIZE == rows[:, :1] // SIZE).all(), "an episode's rows belong to one task"
        assert all(len(set(row.tolist())) == len(row) for row in rows), "support and query share a record"
