"""The one-shot and query methods: their mathematics against closed forms in numpy, their budgets, and their repairs.

Every acceptance is paired with a case that must differ.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dphyper.audits import guards
from dphyper.bench.catalog import METHODS
from dphyper.bench.method import Method
from dphyper.bench.public import PublicRecords
from dphyper.core.errors import UserError
from dphyper.methods.dp_mepf import Moments, squares
from dphyper.methods.dp_merf import FourierFeatures
from dphyper.methods.fitting import FitOptions, PublicFeatures, fit, nearest_votes
from dphyper.methods.matching import MatchingOptions, fit_samples, squared_mmd, tilted_weights
from dphyper.privacy.accounting import calibrate, epsilon_of
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData
from dphyper.targets.diffusion import new_scheduler, new_unet
from dphyper.targets.lora import LoRADiffusion

DELTA = 1e-5
NO_BUDGET = Budget(epsilon=math.inf, delta=DELTA, relation=Relation.ADD_OR_REMOVE_ONE)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of_level(level: float, n: int, seed: int = 0) -> Tensor:
    """Images around one grey."""
    return (level + 0.1 * torch.randn((n, 1, 8, 8), generator=seeded(seed))).clamp(-1, 1)


LEVELS = np.linspace(-0.9, 0.9, 6).tolist()


@pytest.fixture(scope="module")
def target() -> LoRADiffusion:
    torch.manual_seed(0)
    unet = new_unet(image_size=8, channels=1, block_out_channels=(16, 32), layers_per_block=1)
    return LoRADiffusion(unet, new_scheduler(), rank=2, sampling_steps=4, seed=0)


@pytest.fixture(scope="module")
def public() -> PublicRecords:
    """Six public tasks of 16 images, each around a grey of its own."""
    return PublicRecords(
        records=torch.cat([of_level(level, 16, seed) for seed, level in enumerate(LEVELS)]),
        tasks=tuple(np.arange(96).reshape(6, 16)),
        shares=np.full(6, 1 / 6),
    )


def made(name: str, target: LoRADiffusion, public: PublicRecords, **options: Any) -> Any:
    kind: type[Method] = METHODS[name]
    method = kind(target, kind.options_type.parse(name, options), embedding_dim=4)
    method.public = public
    return method.eval()


def releases(method: Any, budget: Budget) -> Any:
    return method.mechanisms(budget, method.options)


def door(records: Tensor, budget: Budget = NO_BUDGET, seed: int = 0) -> PrivateData:
    return PrivateData(records, n=len(records), ledger=Ledger(budget), noise=NoiseSource.reproducible(seed))


# The fit to images.


def test_fit_is_adam_on_the_weighted_loss_and_lowers_it(target: LoRADiffusion, public: PublicRecords) -> None:
    bright = public.records[80:]

    def loss(theta: Tensor) -> float:
        with torch.no_grad():
            return float(target.per_example_loss(theta, bright, seeded(9), stratified=True).mean())

    options = FitOptions(fit_steps=40, fit_batch_size=16, fit_learning_rate=0.02)
    weights = torch.cat([torch.zeros(80), torch.ones(16)])
    fitted = fit(target, target.initial(), public.records, options, seeded(), weights=weights)
    elsewhere = fit(target, target.initial(), public.records, options, seeded(), weights=weights.flip(0))
    assert loss(fitted) < loss(target.initial())
    assert loss(fitted) < loss(elsewhere)
    # Only the images of weight above 0 enter.
    poisoned = torch.where(weights[:, None, None, None] > 0, public.records, torch.nan)
    assert torch.equal(fit(target, target.initial(), poisoned, options, seeded(), weights=weights), fitted)
    assert not fit(target, target.initial(), poisoned, options, seeded(), weights=weights.flip(0)).isfinite().all()


def test_public_features_are_record_wise_of_norm_one(target: LoRADiffusion, public: PublicRecords) -> None:
    features = PublicFeatures(target, public.records)
    assert guards.record_wise(features, of_level(0.3, 6)) is None
    assert guards.record_wise(lambda x: features(x) - features(x).mean(0), of_level(0.3, 6)) is not None
    torch.testing.assert_close(features(100 * of_level(0.3, 6)).norm(dim=1), torch.ones(6))
    raw = target.features(public.records).detach().double().numpy()
    scaled = (raw - raw.mean(0)) / np.maximum(raw.std(0, ddof=1), 1e-3)
    expected = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    np.testing.assert_allclose(features.features_NF.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_differentiable_features_are_the_same_with_a_gradient(target: LoRADiffusion, public: PublicRecords) -> None:
    x = of_level(0.2, 3).requires_grad_()
    for embedding in (PublicFeatures(target, public.records), FourierFeatures(public.records, 8, 1.0, seeded())):
        rows = embedding.differentiable(x)
        torch.testing.assert_close(rows, embedding(x))
        (gradient,) = torch.autograd.grad(rows[:, 0].sum(), x)
        assert float(gradient.abs().max()) > 0


# Mean embeddings.


def test_fourier_features_have_norm_one_and_the_gaussian_kernel(public: PublicRecords) -> None:
    features = FourierFeatures(public.records, 20_000, 0.5, seeded())
    x, y = of_level(0.1, 5, 1), of_level(-0.1, 5, 2)
    pixels = public.records.flatten(1).double().numpy()
    distances = np.sqrt(((pixels[:, None] - pixels[None]) ** 2).sum(-1))[np.triu_indices(96, 1)]
    bandwidth = 0.5 * np.median(distances)
    gap = (x.flatten(1)[:, None] - y.flatten(1)[None]).square().sum(-1).numpy()
    expected = np.exp(-gap / (2 * bandwidth**2))
    np.testing.assert_allclose((features(x) @ features(y).T).numpy(), expected, atol=0.03)
    assert np.abs(np.exp(-gap / bandwidth**2) - expected).max() > 0.05  # another bandwidth is another kernel
    torch.testing.assert_close(features(x).norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("name", ["dp_merf", "dp_mepf"])
def test_released_mean_is_the_mean_without_noise_and_noisy_with_it(
    name: str, target: LoRADiffusion, public: PublicRecords
) -> None:
    method = made(name, target, public)
    embedding, records = method.embedding(seeded()), of_level(0.5, 20)
    mean, std, count = method.release(door(records), embedding, NO_BUDGET)
    np.testing.assert_allclose(mean.numpy(), embedding(records).double().numpy().mean(0), atol=1e-6)
    assert float(std.max()) == 0.0
    assert count == pytest.approx(20.0)
    budget = dataclasses.replace(NO_BUDGET, epsilon=1.0, relation=Relation.ZERO_OUT)
    noisy, std, _ = method.release(door(records, budget), embedding, budget)
    np.testing.assert_allclose(std.numpy(), 3.7306 / 20, rtol=1e-4)  # METHODS: multiplier at ε = 1, δ = 1e-5
    assert 0.5 < float((noisy - mean).square().mean().sqrt() / std[0]) < 1.5


@pytest.mark.parametrize("relation", list(Relation))
def test_second_moments_are_bounded_by_what_their_mechanism_states(
    relation: Relation, target: LoRADiffusion, public: PublicRecords
) -> None:
    """Squares of vectors of norm 1 are √2 apart at most, and at unit norm bound that is reached."""
    budget = dataclasses.replace(NO_BUDGET, epsilon=2.0, relation=relation)
    mechanisms = releases(made("dp_mepf", target, public, moments=2), budget)
    spent = epsilon_of([m.event() for m in mechanisms], DELTA, relation)
    assert spent == pytest.approx(2.0, rel=1e-5)
    rows = squares(torch.eye(12)) / squares(torch.eye(12)).norm(dim=1, keepdim=True)
    apart = float((rows[0] - rows[1]).norm())
    assert apart == pytest.approx(math.sqrt(2))
    assert mechanisms[1].sensitivity(Relation.REPLACE_ONE) >= apart
    assert apart > 1.0  # what published code takes, half of the bound 2
    # One moment alone has the whole budget, with less noise.
    (alone,) = releases(made("dp_mepf", target, public), budget)
    assert mechanisms[0].noise_std(relation) == pytest.approx(alone.noise_std(relation) * math.sqrt(2), rel=1e-4)


def test_moments_of_the_release_equal_those_of_the_embedding(target: LoRADiffusion, public: PublicRecords) -> None:
    method, records = made("dp_mepf", target, public, moments=2), of_level(0.5, 20)
    embedding = method.embedding(seeded())
    assert isinstance(embedding, Moments)
    mean, _, _ = method.release(door(records), embedding, NO_BUDGET)
    phi = embedding.features(records).double().numpy()
    squared = phi**2 * math.sqrt(phi.shape[1] / 3)
    squared /= np.maximum(np.linalg.norm(squared, axis=1, keepdims=True), 1)
    np.testing.assert_allclose(mean.numpy(), np.concatenate([phi, squared], 1).mean(0), atol=1e-6)
    assert not np.allclose(mean.numpy()[: phi.shape[1]], mean.numpy()[phi.shape[1] :], atol=1e-3)


# Matching.


def test_squared_mmd_equals_the_sum_over_pairs_in_numpy() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(9, 3))
    gram = x @ x.T
    expected = (gram.sum() - np.trace(gram)) / 42 - 2 * (x @ y.T).mean() + (y @ y.T).mean()
    mean = torch.from_numpy(y.mean(0))
    got = float(squared_mmd(torch.from_numpy(x), mean))
    assert got == pytest.approx(expected)
    biased = float((torch.from_numpy(x).mean(0) - mean).square().sum())
    assert abs(biased - expected) > 0.05  # with i = j it would grow with the spread of a batch


def test_tilt_solves_its_optimality_conditions_and_lowers_the_mmd() -> None:
    rng = np.random.default_rng(1)
    phi = rng.normal(size=(200, 5))
    mean, ridge = phi[:40].mean(0) + 0.2, np.full(5, 0.05)
    weights = tilted_weights(phi, mean, ridge)
    nu = (mean - weights @ phi) / ridge
    expected = np.exp(phi @ nu)
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-3)

    def exact(w: Any) -> float:
        return float(((w @ phi - mean) ** 2).sum())

    equal = np.full(200, 1 / 200)
    loose = tilted_weights(phi, mean, np.full(5, 1e3))
    assert exact(weights) < 0.1 * exact(equal)
    np.testing.assert_allclose(loose, equal, rtol=0.01)  # all is noise: the public images as they are
    tight = tilted_weights(phi, mean, np.full(5, 1e-6))
    assert exact(tight) < 1e-4 * exact(weights)


def test_mean_embedding_draws_the_weights_to_the_task_of_the_records(
    target: LoRADiffusion, public: PublicRecords
) -> None:
    for name in ("dp_merf", "dp_mepf"):
        method = made(name, target, public)
        embedding = method.embedding(seeded())
        for task in (0, 5):
            mean, _, _ = method.release(door(of_level(LEVELS[task], 32, seed=20)), embedding, NO_BUDGET)
            ridge = np.full(len(mean), 1e-3)
            weights = tilted_weights(embedding.features_NF.double().numpy(), mean.numpy(), ridge)
            # Which task an image of the embedding's own order belongs to.
            level = embedding.records.flatten(1).mean(1)
            near = (level - LEVELS[task]).abs() < 0.18
            assert weights[near.numpy()].sum() > 0.6
            assert weights[~near.numpy()].max() < weights[near.numpy()].max()


def test_few_step_samples_are_those_of_a_deterministic_sampler(target: LoRADiffusion) -> None:
    """Against diffusers' DDIM at the same times; and they have a gradient in θ."""
    from diffusers import DDIMScheduler

    theta = 0.1 * torch.randn(target.num_parameters, generator=seeded(1))
    theta.requires_grad_()
    images = target.few_step_samples(theta, 3, 3, seeded(2))
    (gradient,) = torch.autograd.grad(images.sum(), theta)
    assert gradient.isfinite().all()
    assert float(gradient.abs().max()) > 0

    solver = DDIMScheduler.from_config(target.scheduler.config, clip_sample=True)
    solver.set_timesteps(3)
    x = torch.randn((3, *target.image_shape), generator=seeded(2))
    solver.timesteps = torch.tensor([999, 666, 333])
    alpha = target.scheduler.alphas_cumprod
    with torch.no_grad():
        for t, after in ((999, 666), (666, 333), (333, None)):
            with target._bound(theta.detach()):
                v = target.unet(x, t, return_dict=False)[0]
            step = solver.step(v, t, x)
            clean = step.pred_original_sample
            if after is not None:
                noise = (x - alpha[t].sqrt() * clean) / (1 - alpha[t]).sqrt()
                x = alpha[after].sqrt() * clean + (1 - alpha[after]).sqrt() * noise
    torch.testing.assert_close(images.detach(), clean, rtol=1e-3, atol=1e-3)


def test_fit_by_samples_lowers_the_mmd(target: LoRADiffusion, public: PublicRecords) -> None:
    embedding = FourierFeatures(public.records, 50, 1.0, seeded())
    mean = embedding(of_level(0.8, 64)).mean(0)
    options = MatchingOptions(fit_steps=40, fit_batch_size=32, fit_learning_rate=0.05, sampler_steps=2)
    fitted = fit_samples(target, embedding.differentiable, mean, options, seeded())

    def exact(theta: Tensor) -> float:
        with torch.no_grad():
            return float(squared_mmd(embedding(target.few_step_samples(theta, 256, 2, seeded(8))), mean))

    assert exact(fitted) < exact(target.initial()) - 0.01


def test_unknown_fitting_is_refused() -> None:
    with pytest.raises(UserError, match="expected 'weights' or 'samples'"):
        MatchingOptions(fitting="kernel")


# Private Evolution and PrivImage.


def test_votes_are_for_the_nearest_and_have_norm_one() -> None:
    rng = np.random.default_rng(2)
    x, candidates = rng.normal(size=(11, 4)), rng.normal(size=(9, 4))
    votes = nearest_votes(torch.from_numpy(x), torch.from_numpy(candidates), 3).numpy()
    order = np.argsort(((x[:, None] - candidates[None]) ** 2).sum(-1), axis=1)[:, :3]
    expected = np.zeros((11, 9))
    np.put_along_axis(expected, order, 1 / math.sqrt(3), axis=1)
    np.testing.assert_allclose(votes, expected)
    np.testing.assert_allclose(np.linalg.norm(votes, axis=1), 1)
    assert not np.allclose(nearest_votes(torch.from_numpy(x), torch.from_numpy(candidates[::-1].copy()), 3), expected)


def test_private_evolution_without_noise_keeps_the_nearest_images(
    target: LoRADiffusion, public: PublicRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base model of this test draws one image of each public task; records of one task keep that image alone."""
    drawn = public.records[::16]
    monkeypatch.setattr(
        target, "sample", lambda theta, num, rng: drawn.add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
    )
    monkeypatch.setattr(target, "vary", lambda theta, x, strength, rng: x)
    for task in (0, 5):
        records = of_level(LEVELS[task], 24, seed=30)
        one = made("private_evolution", target, public, population=6, votes=1, iterations=1)
        images, votes = one.evolve(door(records), NO_BUDGET, seeded())
        assert int(votes.argmax()) == task
        assert float(votes.sum()) == pytest.approx(24.0)
        torch.testing.assert_close(images, drawn, atol=0.01, rtol=0)
        # After one round of breeding the whole population is that image.
        two = made("private_evolution", target, public, population=6, votes=1, iterations=2)
        images, _ = two.evolve(door(records), NO_BUDGET, seeded())
        torch.testing.assert_close(images, drawn[task].expand_as(images), atol=0.01, rtol=0)
    # At a tiny budget it is noise: other images are kept too.
    tiny = dataclasses.replace(NO_BUDGET, epsilon=0.01)
    images, _ = two.evolve(door(records, tiny), tiny, seeded())
    assert float((images - drawn[task]).abs().max()) > 0.5


def selected_task(target: LoRADiffusion, public: PublicRecords, task: int, budget: Budget, seed: int) -> float:
    """Mean grey of the images that PrivImage takes for records of one task, less that of the task."""
    method = made("privimage", target, public, votes=1, selected=1, query_share=1.0)
    (query,) = releases(method, budget)
    images, weights = method.ask(door(of_level(LEVELS[task], 24, seed=40), budget, seed), query, seeded())
    assert len(images) == len(weights) == 16
    return float(images.mean()) - LEVELS[task]


def test_privimage_selects_the_task_that_the_records_come_from(target: LoRADiffusion, public: PublicRecords) -> None:
    tiny = dataclasses.replace(NO_BUDGET, epsilon=0.01)
    assert all(abs(selected_task(target, public, task, NO_BUDGET, 0)) < 0.1 for task in (0, 2, 5))
    missed = [abs(selected_task(target, public, 5, tiny, seed)) > 0.1 for seed in range(8)]
    assert sum(missed) >= 3, "with so much noise the right task comes up one time in six"


# DP-FETA.


def test_central_image_is_the_clipped_mean(target: LoRADiffusion, public: PublicRecords) -> None:
    method = made("dp_feta", target, public, image_clip_norm=2.0, warm_up="images", vary_strength=0.0, query_share=1.0)
    records = of_level(0.8, 20)
    images, weights = method.ask(door(records), releases(method, NO_BUDGET)[0], seeded())
    assert weights.tolist() == [1.0]
    centre = public.records.mean(0).numpy()
    offsets = (records.numpy() - centre).reshape(20, -1).astype(np.float64)
    norms = np.linalg.norm(offsets, axis=1, keepdims=True)
    assert norms.min() > 2.0
    expected = centre + (offsets * np.minimum(1, 2.0 / norms)).mean(0).reshape(centre.shape)
    np.testing.assert_allclose(images[0].numpy(), expected, atol=1e-5)
    assert np.abs(expected - records.numpy().mean(0)).max() > 0.1  # the plain mean is another image


def test_central_image_is_divided_by_the_expected_count(target: LoRADiffusion, public: PublicRecords) -> None:
    """A record more moves the image by its own clipped offset over n; a mean over the realised count would not move."""
    method = made("dp_feta", target, public, image_clip_norm=2.0, query_share=1.0)
    (query,) = releases(method, NO_BUDGET)
    records = of_level(0.8, 1).expand(20, -1, -1, -1)

    def offset(num: int) -> Tensor:
        private = PrivateData(records[:num], n=20, ledger=Ledger(NO_BUDGET), noise=NoiseSource.reproducible(0))
        central: Tensor = method.central_offsets(private, query)[0]
        return central

    assert float((offset(20) - offset(19)).norm()) == pytest.approx(2.0 / 20, rel=1e-3)


def test_central_images_of_poisson_samples_differ(target: LoRADiffusion, public: PublicRecords) -> None:
    method = made("dp_feta", target, public, queries=3, query_prob=0.5, query_share=1.0)
    offsets = method.central_offsets(door(of_level(0.3, 24)), releases(method, NO_BUDGET)[0])
    assert offsets.shape == (3, 64)
    assert not torch.allclose(offsets[0], offsets[1], atol=1e-3)


@pytest.mark.parametrize(("queries", "query_prob"), [(1, 1.0), (8, 0.5)])
def test_weights_bring_the_mean_of_public_images_near_the_central_ones(
    queries: int, query_prob: float, target: LoRADiffusion, public: PublicRecords
) -> None:
    method = made(
        "dp_feta", target, public, image_clip_norm=20.0, ridge=0.1, queries=queries, query_prob=query_prob,
        query_share=1.0,
    )  # fmt: skip
    records = of_level(0.5, 24)
    images, weights = method.ask(door(records), releases(method, NO_BUDGET)[0], seeded())
    weighted = float((weights * images.double().flatten(1).mean(1)).sum() / weights.sum())
    assert weighted == pytest.approx(float(records.mean()), abs=0.1)
    assert abs(float(public.records.mean()) - float(records.mean())) > 0.3
    # At a tiny budget the noise says nothing, and the ridge keeps the public images as they are.
    tiny = dataclasses.replace(NO_BUDGET, epsilon=1e-3)
    _, kept = method.ask(door(records, tiny), releases(method, tiny)[0], seeded())
    np.testing.assert_allclose(kept.numpy(), 1 / 96, rtol=0.2)
    assert float(weights.max()) > 2 / 96


def test_warm_up_that_nobody_knows_is_refused(target: LoRADiffusion, public: PublicRecords) -> None:
    with pytest.raises(UserError, match="expected 'weights' or 'images'"):
        made("dp_feta", target, public, warm_up="blur")


# DPAgg.


def test_codes_are_those_of_each_record_alone(target: LoRADiffusion, public: PublicRecords) -> None:
    """A record's code is what plain gradient steps on its own loss give, with the others in the batch or without."""
    method = made("dpagg", target, public, code_steps=3, code_draws=1, code_rate=5.0)
    records = of_level(0.4, 4)
    codes = method.codes(records, seeded(3))
    # The same draws of time and noise, dealt by position, with the other records replaced.
    others = torch.cat([records[:1], of_level(-0.8, 3, seed=9)])
    torch.testing.assert_close(method.codes(others, seeded(3))[0], codes[0], rtol=1e-3, atol=1e-6)
    assert not torch.allclose(method.codes(others, seeded(3))[1], codes[1], rtol=1e-2)

    alone = method.codes(records[:1], seeded(4))[0]
    code, rng = torch.zeros(4), seeded(4)
    for _ in range(3):
        code.requires_grad_()
        (gradient,) = torch.autograd.grad(target.per_example_loss(code @ method.basis_kP, records[:1], rng).sum(), code)
        code = code.detach() - 5.0 * gradient
    torch.testing.assert_close(alone, code, rtol=1e-3, atol=1e-6)


def test_basis_is_orthonormal_and_frozen(target: LoRADiffusion, public: PublicRecords) -> None:
    basis = made("dpagg", target, public).basis_kP
    torch.testing.assert_close(basis @ basis.T, torch.eye(4), atol=1e-5, rtol=0)
    assert torch.equal(basis, made("dpagg", target, public).basis_kP)


def test_dpagg_without_noise_decodes_the_clipped_mean_code(
    target: LoRADiffusion, public: PublicRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = made("dpagg", target, public, public_tasks=2, public_images=8, query_images=4)
    lengths = torch.tensor([0.5, 1.0, 4.0])
    fixed = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0.6, 0.8]])

    def codes(x: Tensor, rng: torch.Generator) -> Tensor:
        """Known codes of norms 0.5, 1 and 4 for the private records, of norm 2 for public ones."""
        if len(x) == 3:
            return lengths[:, None] * fixed
        return 2.0 * fixed[torch.zeros(len(x), dtype=torch.int64)]

    monkeypatch.setattr(method, "codes", codes)
    monkeypatch.setattr(method, "choose_scale", lambda mean_Tk, query, noise_std, rng: 3.0)
    theta = method.adapt(door(of_level(0.1, 3)), NO_BUDGET, seeded()).theta
    relative = lengths.numpy() / 2.0
    clipped = np.minimum(relative, 1.0)[:, None] * fixed.numpy()
    expected = 3.0 * clipped.mean(0) @ method.basis_kP.numpy()
    np.testing.assert_allclose(theta.numpy(), expected, atol=1e-5)
    unclipped = 3.0 * (relative[:, None] * fixed.numpy()).mean(0) @ method.basis_kP.numpy()
    assert np.abs(theta.numpy() - unclipped).max() > 1e-3


def test_scale_is_chosen_by_the_loss_at_the_noise_of_the_release(
    target: LoRADiffusion, public: PublicRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bowl with its minimum at scale 4: found without noise; with much noise a smaller scale is better."""
    method = made("dpagg", target, public)
    centre = method.basis_kP[0]
    monkeypatch.setattr(
        target,
        "per_example_loss",
        lambda theta, x, rng, stratified: (theta - 4.0 * centre).square().sum(1),
    )
    mean = torch.tensor([[1.0, 0, 0, 0]] * 2)
    query = torch.zeros(2, 3, 1, 8, 8)
    assert method.choose_scale(mean, query, 0.0, seeded()) == 4.0
    assert method.choose_scale(mean, query, 3.0, seeded()) < 4.0


# Budgets.


@pytest.mark.parametrize("relation", list(Relation))
@pytest.mark.parametrize("name", ["privimage", "dp_feta"])
def test_query_and_steps_spend_the_budget_exactly(
    name: str, relation: Relation, target: LoRADiffusion, public: PublicRecords
) -> None:
    budget = Budget(epsilon=2.0, delta=DELTA, relation=relation)
    for share in (0.1, 0.5):
        method = made(name, target, public, query_share=share, steps=5)
        query, steps = releases(method, budget)
        assert epsilon_of([query.event(), steps.event()], DELTA, relation) == pytest.approx(2.0, rel=1e-5)
        # The query has its share of 1/σ², here without subsampling, and the steps have the rest.
        (alone,) = calibrate(budget, method.unscaled_query(method.options))
        assert query.noise_multiplier == pytest.approx(alone.noise_multiplier / math.sqrt(share))
        (only_steps,) = calibrate(budget, method._options.unscaled())
        assert steps.noise_multiplier == pytest.approx(only_steps.noise_multiplier / math.sqrt(1 - share), rel=1e-4)
    (query,) = releases(made(name, target, public, query_share=1.0), budget)
    assert epsilon_of([query.event()], DELTA, relation) == pytest.approx(2.0, rel=1e-5)


def test_share_that_no_query_can_have_is_refused(target: LoRADiffusion, public: PublicRecords) -> None:
    for share in (0.0, 1.5):
        with pytest.raises(UserError, match="query_share"):
            made("privimage", target, public, query_share=share)


def test_poisson_queries_and_steps_spend_the_budget_exactly(target: LoRADiffusion, public: PublicRecords) -> None:
    budget = Budget(epsilon=2.0, delta=DELTA, relation=Relation.ADD_OR_REMOVE_ONE)
    method = made("dp_feta", target, public, queries=3, query_prob=0.5, sampling_prob=0.25, steps=5)
    query, steps = releases(method, budget)
    spent = epsilon_of([query.event(), steps.event()], DELTA, budget.relation)
    assert spent == pytest.approx(2.0, rel=1e-4)
    assert epsilon_of([query.event()], DELTA, budget.relation) < 0.9 * spent


@pytest.mark.parametrize("relation", list(Relation))
def test_evolution_and_single_releases_spend_the_budget_exactly(
    relation: Relation, target: LoRADiffusion, public: PublicRecords
) -> None:
    budget = Budget(epsilon=2.0, delta=DELTA, relation=relation)
    votes = releases(made("private_evolution", target, public, iterations=3), budget)
    (once,) = releases(made("private_evolution", target, public, iterations=1), budget)
    assert votes[0].noise_multiplier == pytest.approx(once.noise_multiplier * math.sqrt(3), rel=1e-4)
    for mechanisms in (
        votes,
        (once,),
        releases(made("dp_merf", target, public), budget),
        releases(made("dpagg", target, public), budget),
    ):
        spent = epsilon_of([m.event() for m in mechanisms], DELTA, relation)
        assert spent == pytest.approx(2.0, rel=1e-5)
