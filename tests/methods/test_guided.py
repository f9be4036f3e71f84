"""Optimisers guided by public gradients: each against an independent computation, where the answer is exact.

Formulas of official code are restated in numpy, with the file that holds them named.
"""

import math
from functools import cache
from typing import Any

import dp_accounting
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dphyper.bench.catalog import METHODS
from dphyper.bench.public import PublicRecords
from dphyper.core.errors import UserError
from dphyper.methods.public_space import principal_directions
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData
from dphyper.studies.theory.regression import LinearRegression
from dphyper.targets.diffusion import new_scheduler, new_unet
from dphyper.targets.lora import LoRADiffusion

D = 6
FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
TIGHT = Budget(epsilon=1.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


class Echo(LinearRegression):
    """A target whose gradients are the records themselves, so that any gradient can be put in."""

    def per_example_gradients(self, theta: Tensor, x: Tensor, rng: torch.Generator, multiplicity: int) -> Tensor:
        return x

    def vary(self, theta: Tensor, x: Tensor, strength: float, rng: torch.Generator) -> Tensor:  # type: ignore[override]
        return x + 100


class Layered(Echo):
    """Gradients of a 3×2 and of a 2×2 matrix."""

    layer_shapes = ((3, 2), (2, 2))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def regression(n: int, seed: int, noise: float = 0.1) -> Tensor:
    """(n, D + 1) records of the weights 1, …, 1."""
    x = normal(n, D, seed=seed)
    return torch.cat([x, x.sum(1, keepdim=True) + noise * normal(n, 1, seed=seed + 100)], 1)


def public(records: Tensor, tasks: int = 8) -> PublicRecords:
    rows = np.arange(len(records)).reshape(tasks, -1)
    return PublicRecords(records=records, tasks=tuple(rows), shares=np.full(tasks, 1 / tasks))


def made(name: str, records: Tensor, target: Any = None, **options: Any) -> Any:
    kind = METHODS[name]
    method = kind(target or LinearRegression(D), kind.options_type.parse(name, options), embedding_dim=0)
    method.public = public(records)
    return method


def adapted(name: str, budget: Budget = FREE, **options: Any) -> Tensor:
    """Parameters from 40 regression records, always with the same noise."""
    options = {"steps": 5, "learning_rate": 0.1, "l2_clip_norm": 2.0} | options
    private = PrivateData(regression(40, 1), n=40, ledger=Ledger(budget), noise=NoiseSource.reproducible(0))
    theta: Tensor = (
        made(name, regression(64, 2), **options).adapt(private, budget, torch.Generator().manual_seed(3)).theta
    )
    return theta


def prepared(name: str, records: Tensor, target: Any = None, **options: Any) -> Any:
    """The guide of a method, ready for its first step at θ = 0."""
    method = made(name, records, target, **options)
    guide = method.guide_type(method.target, method._options, torch.Generator().manual_seed(3), method.public)
    guide.prepare(method.target.initial(), 0)
    return guide


def clipped(rows: NDArray[np.float64], clip: float) -> NDArray[np.float64]:
    return rows * np.minimum(1, clip / np.linalg.norm(rows, axis=1, keepdims=True))


# ---- the space of public gradients ---------------------------------------------------------------------------------


def test_directions_are_those_of_a_dense_eigendecomposition() -> None:
    rows = normal(12, 20) * torch.linspace(5, 0.5, 20)
    found = principal_directions(rows, 4).numpy()
    dense = np.linalg.eigh(rows.double().numpy().T @ rows.double().numpy())[1]  # in rising order
    np.testing.assert_allclose(found.T @ found, dense[:, -4:] @ dense[:, -4:].T, atol=1e-5)
    # DP2's trainers/dp_adagrad_grad_projection.py takes the first k of them, which are the smallest.
    assert np.abs(found.T @ found - dense[:, :4] @ dense[:, :4].T).max() > 0.1


def test_directions_that_are_not_there_are_zero() -> None:
    rows = normal(7, 3) @ normal(3, 20)
    found = principal_directions(rows, 9)
    assert found.shape == (9, 20)
    torch.testing.assert_close(found[:3] @ found[:3].T, torch.eye(3), atol=1e-5, rtol=0)
    assert not found[3:].any()
    assert principal_directions(torch.full((4, 5), math.nan), 2).eq(0).all()


@pytest.mark.parametrize("budget", [FREE, TIGHT], ids=["free", "noisy"])
def test_pdp_sgd_on_the_whole_space_is_dp_sgd(budget: Budget) -> None:
    wanted = adapted("dp_sgd", budget)
    torch.testing.assert_close(adapted("pdp_sgd", budget, basis_size=D), wanted, rtol=1e-4, atol=1e-5)
    assert (adapted("pdp_sgd", budget, basis_size=1) - wanted).norm() > 0.1 * wanted.norm()


def test_pdp_sgd_steps_stay_in_the_public_space() -> None:
    """θ of a run whose basis is never taken anew lies in the span of its k directions, noise and all."""
    records = regression(64, 2) * torch.tensor([1.0, 1.0, 0, 0, 0, 0, 1.0])
    private = PrivateData(regression(40, 1), n=40, ledger=Ledger(TIGHT), noise=NoiseSource.reproducible(0))
    method = made("pdp_sgd", records, basis_size=8, steps=4, public_every=4)
    theta = method.adapt(private, TIGHT, torch.Generator().manual_seed(0)).theta
    assert theta[:2].abs().min() > 1e-3
    assert theta[2:].abs().max() < 1e-6 * theta.norm()


# ---- GEP -----------------------------------------------------------------------------------------------------------


def gep_in_numpy(
    gradients: NDArray[np.float64], anchors: NDArray[np.float64], k: int, clips: tuple[float, float], residual: bool
) -> NDArray[np.float64]:
    """models/basis_matching.py (GEP.forward) and main.py of dayu11/Gradient-Embedding-Perturbation, without noise.

    With exact directions in place of a power iteration.
    """
    bases = np.linalg.eigh(anchors.T @ anchors)[1][:, -k:]
    embedding = gradients @ bases
    update = clipped(embedding, clips[0]).mean(0) @ bases.T
    return update + clipped(gradients - embedding @ bases.T, clips[1]).mean(0) if residual else update


@pytest.mark.parametrize("name", ["gep", "b_gep"])
def test_gep_is_the_published_update(name: str) -> None:
    anchors, gradients = normal(8, D, seed=5), normal(30, D, seed=6)
    clips = {"embedding_clip_norm": 1.1} | ({"residual_clip_norm": 0.7} if name == "gep" else {})
    guide = prepared(name, anchors, Echo(D), basis_size=2, public_images=1, public_tasks=64, **clips)
    drawn = guide._public.draw(64, 1, torch.Generator().manual_seed(3)).flatten(0, 1)
    found = guide.gradient(guide.contribution(torch.zeros(D), gradients, guide.rng).mean(0).float()).numpy()

    def wanted(c0: float, c1: float) -> NDArray[np.float64]:
        return gep_in_numpy(gradients.double().numpy(), drawn.double().numpy(), 2, (c0, c1), name == "gep")

    np.testing.assert_allclose(found, wanted(1.1, 0.7), atol=1e-5)
    assert np.abs(found - wanted(9.0, 0.7)).max() > 0.01
    if name == "gep":
        assert np.abs(found - wanted(1.1, 9.0)).max() > 0.01


def test_gep_rows_are_jointly_bounded() -> None:
    """Whatever the gradient, each part has norm 1 at most and both √2; and it takes √2: norm 1 would not do."""
    guide = prepared("gep", normal(8, D, seed=5), Echo(D), basis_size=2, public_tasks=64)
    inside, outside = guide.basis_kP[0], torch.linalg.qr(torch.cat([guide.basis_kP, normal(1, D)]).T).Q[:, 2]
    bad = [torch.full((D,), value) for value in (math.nan, math.inf, 3e38, 1e-40, 0.0)]
    x = torch.stack([a * inside + b * outside for a in (0, 1e-9, 1, 1e9) for b in (0, 1e-9, 1, 1e9)] + bad)
    rows = guide.contribution(torch.zeros(D), x, guide.rng)
    assert rows.shape == (len(x), 2 + D)
    assert rows.isfinite().all()
    assert rows[:, :2].norm(dim=1).max() <= 1
    assert rows[:, 2:].norm(dim=1).max() <= 1
    assert math.sqrt(2) - 1e-6 < rows.norm(dim=1).max() <= math.sqrt(2)


def test_gep_noise_pays_for_two_releases() -> None:
    """Against the published accounting, two Gaussians of sensitivity 1 in each step, by dp_accounting."""
    method = made("gep", normal(8, D), steps=7)
    std = method.mechanisms(TIGHT, method.options)[0].noise_std(TIGHT.relation)

    def epsilon(releases: int) -> float:
        accountant = dp_accounting.pld.PLDAccountant()
        accountant.compose(dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(std), releases))
        return float(accountant.get_epsilon(TIGHT.delta))

    assert epsilon(2 * 7) == pytest.approx(1.0, abs=0.01)
    assert epsilon(7) < 0.75
    method = made("b_gep", normal(8, D), steps=7)
    (biased,) = method.mechanisms(TIGHT, method.options)
    assert std == pytest.approx(math.sqrt(2) * biased.noise_std(TIGHT.relation), rel=1e-6)


# ---- RGP -----------------------------------------------------------------------------------------------------------


def test_rgp_of_full_rank_is_exact() -> None:
    gradient = normal(1, 10, seed=7)
    for rank, exact in ((2, True), (1, False)):
        guide = prepared("rgp", normal(16, 10), Layered(10), carrier_rank=rank)
        found = guide.gradient(guide.contribution(torch.zeros(10), gradient, guide.rng)[0])
        assert torch.allclose(found, gradient[0], atol=1e-5) == exact


def test_rgp_is_the_published_update() -> None:
    """Both carriers as in the paper, and the left one as in get_full_grad of vision/RGP/models/resnet_cifar.py.

    (dayu11/Differentially-Private-Deep-Learning.) In numpy the former is G − (I − L Lᵀ) G (I − Rᵀ R).
    """
    gradient = normal(1, 10, seed=7)
    for carriers in ("both", "left"):
        guide = prepared("rgp", normal(16, 10), Layered(10), carriers=carriers, public_images=1)
        drawn = guide._public.draw(64, 1, torch.Generator().manual_seed(3)).flatten(0, 1).double().numpy()
        found = guide.gradient(guide.contribution(torch.zeros(10), gradient, guide.rng)[0]).numpy()
        for part, (o, i) in ((slice(0, 6), (3, 2)), (slice(6, 10), (2, 2))):
            seen = drawn[:, part].reshape(-1, o, i)
            left = np.linalg.eigh(sum(g @ g.T for g in seen))[1][:, -1:]
            right = np.linalg.eigh(sum(g.T @ g for g in seen))[1][:, -1:].T
            whole = gradient[0, part].double().numpy().reshape(o, i)
            left_grad = whole @ right.T
            wanted = left_grad @ right
            if carriers == "both":
                wanted = whole - (np.eye(o) - left @ left.T) @ whole @ (np.eye(i) - right.T @ right)
            np.testing.assert_allclose(found[part], wanted.ravel(), atol=1e-5)


def test_rgp_without_matrices_is_dp_sgd() -> None:
    torch.testing.assert_close(adapted("rgp", carriers="left"), adapted("dp_sgd"), rtol=1e-4, atol=1e-5)
    noisy = [adapted("rgp", TIGHT, carriers="left", public_every=every) for every in (1, 5)]
    assert all((theta - adapted("dp_sgd")).norm() > 0.1 for theta in noisy)


# ---- PAZO ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.01, 1.0])
def test_pazo_differences_are_the_derivatives_of_a_quadratic(smoothing: float) -> None:
    guide = prepared("pazo", regression(64, 2), probes=3, basis_size=4, smoothing=smoothing, multiplicity=2)
    theta, x = normal(D, seed=8).requires_grad_(), regression(5, 9)
    found = guide.contribution(theta.detach(), x, guide.rng)
    for row, wanted in zip(x, found, strict=True):
        (gradient,) = torch.autograd.grad(guide.target.per_example_loss(theta, row[None], None).sum(), theta)
        torch.testing.assert_close(guide.probes_qP @ gradient, wanted, rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(guide.probes_qP @ guide.probes_qP.T, torch.eye(3), atol=1e-5, rtol=0)


@cache
def unet() -> LoRADiffusion:
    torch.manual_seed(0)
    model = new_unet(image_size=8, channels=1, block_out_channels=(16, 32), layers_per_block=1)
    return LoRADiffusion(model, new_scheduler(), rank=2, sampling_steps=2, seed=0)


def test_pazo_takes_both_losses_at_the_same_times_and_noises() -> None:
    """On a diffusion loss, whose value is mostly noise: derivatives by autograd, one evaluation's randomness."""
    target, images = unet(), normal(32, 1, 8, 8).clamp(-1, 1)
    guide = prepared("pazo", images, target, probes=3, basis_size=4, public_tasks=4, public_images=2, multiplicity=2)
    theta = 0.1 * normal(target.num_parameters, seed=4)
    begin = guide.rng.get_state()
    found = guide.contribution(theta, images[:5], guide.rng)
    end = guide.rng.get_state()
    guide.rng.set_state(begin)
    gradient = target.per_example_gradients(theta, images[:5], guide.rng, 2)
    torch.testing.assert_close(found, gradient @ guide.probes_qP.T, rtol=0.02, atol=1e-5)
    assert torch.equal(guide.rng.get_state(), end)

    # What a difference of two losses at times of their own would say.
    def loss(reach: float) -> Tensor:
        with torch.no_grad():
            return target.per_example_loss(theta + reach * guide.probes_qP[0], images[:5], guide.rng)

    careless = (loss(0.1) - loss(-0.1)) / 0.2
    assert (careless - found[:, 0]).norm() > 10 * found[:, 0].norm()


def test_pazo_with_a_probe_for_every_direction_is_dp_sgd() -> None:
    wanted = adapted("dp_sgd")
    torch.testing.assert_close(adapted("pazo", basis_size=D, probes=D), wanted, rtol=1e-3, atol=1e-3)
    assert (adapted("pazo", basis_size=D, probes=1) - wanted).norm() > 0.1 * wanted.norm()


# ---- PE-SGD --------------------------------------------------------------------------------------------------------


def test_pe_sgd_coefficients_are_those_of_ridge_regression() -> None:
    """By numpy's least squares on [Gᵀ; √η I], which forms no Gram matrix; and not those without a ridge."""
    guide = prepared("pe_sgd", normal(64, 20), Echo(20), synthetic_images=16, ridge=0.05)
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


def test_pe_sgd_is_the_published_update() -> None:
    """opt_grad_combine in pesgd/llm/sample_grad.py of LindaLydia/PE-SGD, normalised, without noise."""
    guide = prepared("pe_sgd", normal(64, 20), Echo(20), synthetic_images=16, ridge=0.05)
    rows, gradients = guide.images.double().numpy(), normal(10, 20, seed=6)
    gram = rows @ rows.T
    inverse = np.linalg.pinv(gram + 0.05 * np.mean(np.diag(gram)) * np.eye(16))
    coefficients = inverse @ (rows @ gradients.double().numpy().T)
    coefficients = coefficients / (np.linalg.norm(coefficients, axis=0, keepdims=True) + 1e-8)
    found = guide.gradient(guide.contribution(torch.zeros(20), gradients, guide.rng).mean(0).float()).numpy()
    np.testing.assert_allclose(found, rows.T @ coefficients.sum(1) / 10, atol=1e-4)


def test_pe_sgd_votes_have_norm_one_whatever_the_gradient() -> None:
    guide = prepared("pe_sgd", normal(64, 20), Echo(20), synthetic_images=16)
    gradient = normal(1, 20, seed=6)
    x = torch.cat([scale * gradient for scale in (1e-20, 1e-3, 1.0, 1e20)])
    votes = guide.contribution(torch.zeros(20), x, guide.rng)
    torch.testing.assert_close(votes, votes[2].expand(4, -1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(votes.norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert not guide.contribution(torch.zeros(20), torch.zeros(1, 20), guide.rng).any()


def test_pe_sgd_images_follow_the_coefficients() -> None:
    guide = prepared("pe_sgd", normal(64, 20), Echo(20), synthetic_images=6, evolve_every=2)
    first = guide.images
    guide.gradient(torch.tensor([0.0, -9.0, 0.0, 1.0, 0.1, 0.0]))
    guide.prepare(torch.zeros(20), 1)
    assert torch.equal(guide.images, first)
    guide.prepare(torch.zeros(20), 2)
    assert {tuple(image) for image in guide.images[:3].tolist()} == {tuple(first[i].tolist()) for i in (1, 3, 4)}
    assert torch.equal(guide.images[3:], guide.images[:3] + 100)


def test_pe_sgd_leaves_images_where_nothing_can_vary_them() -> None:
    theta = adapted("pe_sgd", l2_clip_norm=1.0, evolve_every=0, synthetic_images=16)
    assert LinearRegression(D).evaluate(theta, torch.ones(D)) < 0.9 * D
    with pytest.raises(NotImplementedError, match="none to vary"):
        adapted("pe_sgd", l2_clip_norm=1.0, evolve_every=1, synthetic_images=16)


# ---- all of them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pdp_sgd", {"basis_size": 20, "public_tasks": 10}, "at most options.public_tasks = 10"),
        ("gep", {"public_every": 0}, "at least 1 step"),
        ("gep", {"residual_clip_norm": 0.0}, "residual_clip_norm"),
        ("b_gep", {"embedding_clip_norm": math.inf}, "embedding_clip_norm = inf"),
        ("gep", {"l2_clip_norm": 1.0}, "leave it and set embedding_clip_norm"),
        ("rgp", {"carriers": "right"}, "'both' or 'left'"),
        ("rgp", {"carrier_rank": 0}, "at least 1"),
        ("pazo", {"probes": 9, "basis_size": 8}, "at most options.basis_size = 8"),
        ("pazo", {"smoothing": 0.0}, "smoothing"),
        ("pe_sgd", {"synthetic_images": 1}, "synthetic_images = 1"),
        ("pe_sgd", {"ridge": 0.0}, "ridge"),
        ("pe_sgd", {"l2_clip_norm": 0.5}, "norm 1"),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    METHODS[name].options_type.parse(name, {})
    with pytest.raises(UserError, match=message):
        METHODS[name].options_type.parse(name, options)
