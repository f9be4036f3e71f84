"""Encoder, novelty mark and shrinkage, against numpy and textbook formulas."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from dphyper.audits import contract, guards
from dphyper.methods.embedding import Novelty, Shrinkage


def test_encoder_is_record_wise() -> None:
    """The embedding of a record depends on no other record; a batch-normalising encoder would fail."""
    made: Any = contract.tiny_method("hypernetwork")
    records = contract.tiny_records(6)

    def embed(x: Tensor) -> Tensor:
        with torch.no_grad():
            return made.embed(x)

    assert guards.record_wise(embed, records) is None
    assert guards.record_wise(lambda x: embed(x) - embed(x).mean(0), records) is not None
    assert float(embed(100 * records).norm(dim=1).max()) <= 1 + 1e-6


def test_an_embedding_far_from_all_public_tasks_gives_the_prior() -> None:
    rng = np.random.default_rng(0)
    cov = np.diag([4.0, 1.0, 0.25])
    tasks = torch.from_numpy(rng.multivariate_normal(np.ones(3), cov, 4000)).float()
    shrinkage = Shrinkage(3, doubt=0.01)
    shrinkage.mean_K.copy_(torch.ones(3))
    shrinkage.cov_KK.copy_(torch.from_numpy(cov))
    shrinkage.within.fill_(0.0)
    clean, many = torch.zeros(4000), torch.full((4000,), 100.0)
    distance = shrinkage.distance(tasks, clean, many)
    mahalanobis = np.sqrt(((tasks.numpy() - 1) ** 2 / np.diag(cov)).mean(1))
    np.testing.assert_allclose(distance.numpy(), mahalanobis, rtol=1e-4)
    assert float(distance.square().mean()) == pytest.approx(1.0, abs=0.05)
    assert float((distance > shrinkage.reach).float().mean()) == pytest.approx(0.01, abs=0.005)
    free = Shrinkage(3)
    free.load_state_dict(shrinkage.state_dict())
    (shrunk, resolved), (taken, all_resolved) = shrinkage(tasks, clean, many), free(tasks, clean, many)
    density = multivariate_normal(np.ones(3), cov).pdf(tasks.numpy())
    edge = multivariate_normal(np.ones(3), cov).pdf(np.ones(3) + np.sqrt(np.diag(cov)) * shrinkage.reach)
    belief = torch.from_numpy(density / (density + edge)).float()
    torch.testing.assert_close(resolved, belief * all_resolved, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(shrunk, belief[:, None] * taken, rtol=1e-3, atol=1e-6)
    gone = torch.tensor([[1.0, 1.0, 1.0 + 1e3]])
    assert not any(part.any() for part in shrinkage(gone, clean[:1], many[:1]))
    assert float(free(gone, clean[:1], many[:1])[0].norm()) > 100  # without a reach the decoder meets what it never met


def test_novelty_is_what_lies_outside_of_the_public_plane() -> None:
    """Against the singular value decomposition of numpy, on records near a plane of two dimensions."""
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    spread = np.array([5.0, 3.0, 0.1, 0.1, 0.1, 0.1])
    public, same = (torch.from_numpy((rng.normal(size=(500, 6)) * spread) @ plane.T).float() for _ in range(2))
    novelty = Novelty(6, limit=4.0, components=2)
    assert not novelty(100 * public).any()  # before it has seen any
    novelty.fit(public)
    axes = np.linalg.svd(public.numpy())[2][:2]
    outside = public.numpy() - public.numpy() @ axes.T @ axes
    assert float(novelty.unit) == pytest.approx(np.sqrt((outside**2).sum(1).mean()), rel=1e-3)
    assert not novelty(same).any()
    assert not novelty(same + 30 * axes[0]).any()  # far, but within the plane
    moved = same.clone()
    moved[::2] += torch.from_numpy(2 * plane[:, 2]).float()
    assert torch.equal(novelty(moved), torch.tensor([1.0, 0.0] * 250))
    assert torch.equal(torch.cat([novelty(row[None]) for row in moved]), novelty(moved))


def test_shrinkage_is_the_posterior_mean() -> None:
    """Against the textbook formula S (S + Σ)⁻¹ (z - m), whitened by S^(-1/2), in numpy."""

    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    cov, mean, z = root @ root.T, rng.normal(size=4), rng.normal(size=4)
    shrinkage = Shrinkage(4)
    shrinkage.mean_K.copy_(torch.from_numpy(mean))
    shrinkage.cov_KK.copy_(torch.from_numpy(cov))
    shrinkage.within.fill_(0.5)
    noise = 0.3**2 + 0.5 / 20
    values, vectors = np.linalg.eigh(cov)
    whitening = vectors @ np.diag(values**-0.5) @ vectors.T
    expected = whitening @ cov @ np.linalg.solve(cov + noise * np.eye(4), z - mean)
    got, resolved = shrinkage(torch.from_numpy(z).float()[None], torch.tensor([0.3]), torch.tensor([20.0]))
    np.testing.assert_allclose(got[0].numpy(), expected, rtol=1e-4)
    assert float(resolved) == pytest.approx(values.mean() / (values.mean() + noise), rel=1e-4)
