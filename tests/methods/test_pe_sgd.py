"""PE-SGD's coefficients are those of ridge regression, and its images follow them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dphyper.bench.catalog import METHODS
from dphyper.core.errors import UserError
from dphyper.studies.theory.regression import LinearRegression


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Echo(LinearRegression):
    """A target whose gradients are the records themselves, and whose variations are known."""

    def per_example_gradients(self, theta: Tensor, x: Tensor, rng: torch.Generator, multiplicity: int) -> Tensor:
        return x

    def vary(self, theta: Tensor, x: Tensor, strength: float, rng: torch.Generator) -> Tensor:
        return x + 100


def test_pe_sgd_coefficients_are_those_of_ridge_regression(regression: Any) -> None:
    """By numpy's least squares on [Gᵀ; √η I], which forms no Gram matrix; and not those without a ridge."""
    guide = regression.prepared("pe_sgd", public=normal(64, 20), target=Echo(20), synthetic_images=16, ridge=0.05)
    synthetic = guide.images.double().numpy()
    ridge = 0.05 * np.mean(np.sum(synthetic**2, 1))
    gradients = normal(10, 20, seed=6)
    found = guide.contribution(torch.zeros(20), gradients, guide.rng)

    def wanted(eta: float) -> NDArray[np.float64]:
        stacked = np.concatenate([synthetic.T, math.sqrt(eta) * np.eye(16)])
        z = np.linalg.lstsq(stacked, np.pad(gradients.double().numpy().T, ((0, 16), (0, 0))), rcond=None)[0].T
        return np.asarray(z / np.linalg.norm(z, axis=1, keepdims=True))

    np.testing.assert_allclose(found.numpy(), wanted(ridge), atol=1e-4)
    assert np.abs(found.numpy() - wanted(1e-9 * ridge)).max() > 0.01


def test_pe_sgd_is_the_published_update(regression: Any) -> None:
    """opt_grad_combine in pesgd/llm/sample_grad.py of LindaLydia/PE-SGD, normalised, without noise."""
    guide = regression.prepared("pe_sgd", public=normal(64, 20), target=Echo(20), synthetic_images=16, ridge=0.05)
    rows, gradients = guide.images.double().numpy(), normal(10, 20, seed=6)
    gram = rows @ rows.T
    inverse = np.linalg.pinv(gram + 0.05 * np.mean(np.diag(gram)) * np.eye(16))
    coefficients = inverse @ (rows @ gradients.double().numpy().T)
    coefficients = coefficients / (np.linalg.norm(coefficients, axis=0, keepdims=True) + 1e-8)
    found = guide.gradient(guide.contribution(torch.zeros(20), gradients, guide.rng).mean(0).float()).numpy()
    np.testing.assert_allclose(found, rows.T @ coefficients.sum(1) / 10, atol=1e-4)


def test_pe_sgd_votes_have_norm_one_whatever_the_gradient(regression: Any) -> None:
    guide = regression.prepared("pe_sgd", public=normal(64, 20), target=Echo(20), synthetic_images=16)
    gradient = normal(1, 20, seed=6)
    x = torch.cat([scale * gradient for scale in (1e-20, 1e-3, 1.0, 1e20)])
    votes = guide.contribution(torch.zeros(20), x, guide.rng)
    torch.testing.assert_close(votes, votes[2].expand(4, -1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(votes.norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert not guide.contribution(torch.zeros(20), torch.zeros(1, 20), guide.rng).any()


def test_pe_sgd_images_follow_the_coefficients(regression: Any) -> None:
    guide = regression.prepared("pe_sgd", public=normal(64, 20), target=Echo(20), synthetic_images=6, evolve_every=2)
    first = guide.images
    guide.gradient(torch.tensor([0.0, -9.0, 0.0, 1.0, 0.1, 0.0]))
    guide.prepare(torch.zeros(20), 1)
    assert torch.equal(guide.images, first)
    guide.prepare(torch.zeros(20), 2)
    assert {tuple(image) for image in guide.images[:3].tolist()} == {tuple(first[i].tolist()) for i in (1, 3, 4)}
    assert torch.equal(guide.images[3:], guide.images[:3] + 100)


def test_pe_sgd_leaves_images_where_nothing_can_vary_them(regression: Any) -> None:
    theta = regression.adapt("pe_sgd", l2_clip_norm=1.0, evolve_every=0, synthetic_images=16)
    assert float((theta - torch.ones(6)).square().sum()) < 0.9 * 6
    with pytest.raises(UserError, match="cannot vary records"):
        regression.adapt("pe_sgd", l2_clip_norm=1.0, evolve_every=1, synthetic_images=16)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pe_sgd", {"synthetic_images": 1}, "synthetic_images = 1"),
        ("pe_sgd", {"ridge": 0.0}, "ridge"),
        ("pe_sgd", {"l2_clip_norm": 0.5}, "norm 1"),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    METHODS[name].options_type.parse(name, {})
    with pytest.raises(UserError, match=message):
        METHODS[name].options_type.parse(name, options)
