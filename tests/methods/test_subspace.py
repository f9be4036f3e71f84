"""The controls inside a public subspace, against references that share no code."""

import dataclasses
import logging
import math
import warnings
from functools import cache
from typing import Any, NoReturn

import lightning
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dphyper.audits import guards
from dphyper.bench.tasks import Collection, Task
from dphyper.core.errors import UserError
from dphyper.methods.descent import RateOptions
from dphyper.methods.dp_sgd import DPSGD
from dphyper.methods.subspace import SubspaceDPSGD, SubspaceDPSGDOptions, SubspaceOneShot, SubspaceOneShotOptions
from dphyper.privacy.budget import Budget, Relation
from dphyper.studies.theory.regression import LinearRegression
from dphyper.targets.diffusion import to_unit
from dphyper.targets.target import Target

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ZERO_OUT)
TIGHT = Budget(epsilon=1.0, delta=1e-5, relation=Relation.ZERO_OUT)
SIDE, K, TASKS, SIZE = 6, 2, 60, 40
P = SIDE**2
PHASE: dict[str, Any] = {
    "train_steps": 800,
    "query": 8,
    "basis_rate": 0.01,
    "code_rate": 0.1,
    "code_decay": 0.0,
    "probe_tasks": 120,
    "unit_quantile": 1.0,  # nothing is clipped: the mean gradient is linear in the task then
}


class Quadratic(Target):
    """Loss ½ ‖θ − x‖² of records that are pixels: the best θ of a task is the mean of its records."""

    num_parameters = num_features = P

    def initial(self) -> Tensor:
        return torch.zeros(P)

    def encode(self, records: NDArray[Any]) -> Tensor:
        return to_unit(records)

    def per_example_loss(
        self, theta: Tensor, x: Tensor, rng: torch.Generator | None, *, stratified: bool = False
    ) -> Tensor:
        return 0.5 * (theta - x.flatten(1)).square().sum(1)

    def per_example_gradients(self, theta: Tensor, x: Tensor, rng: torch.Generator, multiplicity: int) -> Tensor:
        return theta - x.flatten(1)

    def sample(self, theta: Tensor, num: int, rng: torch.Generator) -> NoReturn:
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)


@dataclasses.dataclass(frozen=True)
class World:
    """Tasks with means b + U a: the public ones as a collection, and what they were made from."""

    mean_P: np.ndarray
    axes_PK: np.ndarray

    def records(self, a_K: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        x = self.mean_P + self.axes_PK @ a_K + 0.1 * rng.normal(size=(size, P))
        return np.clip(np.rint((x + 1) * 127.5), 0, 255).astype(np.uint8).reshape(size, SIDE, SIDE, 1)


@cache
def world() -> tuple[World, Collection]:
    rng = np.random.default_rng(0)
    made = World(rng.uniform(-0.2, 0.2, P), np.linalg.qr(rng.normal(size=(P, K)))[0])
    a_TK = rng.normal(size=(TASKS + 1, K)) * np.array([0.8, 0.5])
    records = np.concatenate([made.records(a_K, SIZE, rng) for a_K in a_TK])
    tasks = tuple(
        Task(
            id=str(i),
            family=str(i),
            split="public" if i < TASKS else "private",  # a collection has at least one of each
            indices=np.arange(SIZE) + i * SIZE,
            kind="family",
        )
        for i in range(TASKS + 1)
    )
    return made, Collection(name="quadratic", records=records, tasks=tasks)


@cache
def trained() -> SubspaceOneShot:
    """The public phase as the harness runs it; the DP-SGD has the same."""
    lightning.seed_everything(0, verbose=False)
    method = SubspaceOneShot(Quadratic(), SubspaceOneShotOptions(**PHASE), embedding_dim=K)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        trainer = lightning.Trainer(
            max_steps=PHASE["train_steps"],
            accelerator="cpu",
            devices=1,
            logger=False,
            gradient_clip_val=1.0,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            limit_val_batches=0,
        )
        trainer.fit(method, datamodule=method.public_data(world()[1]))
    return method.eval()


def private_records(seed: int = 1, size: int = 400) -> Tensor:
    """Of a task that no public one is."""
    rng = np.random.default_rng(seed)
    records = world()[0].records(rng.normal(size=K) * np.array([0.8, 0.5]), size, rng)
    return torch.from_numpy(records.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1


def least_squares(records: Tensor) -> np.ndarray:
    """(P,) the best parameters in the learned subspace, by numpy."""
    method = trained()
    b, basis = method.mean_P.detach().numpy(), method.basis_Pk.detach().numpy()
    return b + basis @ np.linalg.lstsq(basis, records.flatten(1).mean(0).numpy() - b, rcond=None)[0]


def smallest_cosine(first: Tensor, second: Tensor) -> float:
    """Of the principal angles between two orthonormal bases."""
    return float(torch.linalg.svdvals(first.T @ second).min())


def test_learned_subspace_is_that_of_the_public_tasks() -> None:
    made, method = world()[0], trained()
    basis, true = method.basis_Pk.detach(), torch.from_numpy(made.axes_PK).float()
    torch.testing.assert_close(basis.T @ basis, torch.eye(K), atol=1e-5, rtol=0)
    assert smallest_cosine(basis, true) > math.cos(math.radians(8))
    random = torch.linalg.qr(torch.randn(P, K, generator=torch.Generator().manual_seed(0))).Q
    assert smallest_cosine(random, true) < math.cos(math.radians(45))
    assert "_codes.weight" not in method.state_dict()


def test_mean_and_scales_are_those_of_the_tasks() -> None:
    """Against the principal components of the tasks' own means."""
    method, records = trained(), world()[1].records[: TASKS * SIZE]
    means = (records.reshape(TASKS, SIZE, P).astype(float) / 127.5 - 1).mean(1)
    values = np.linalg.svd(means - means.mean(0), compute_uv=False)[:K] / math.sqrt(TASKS)
    np.testing.assert_allclose(method.scale_k.numpy(), values, rtol=0.1)
    assert method.scale_k[0] > method.scale_k[1]
    assert np.linalg.norm(method.mean_P.detach().numpy() - means.mean(0)) < 0.1 * np.linalg.norm(means.mean(0))


def test_standardising_moves_no_task() -> None:
    rng = torch.Generator().manual_seed(0)
    method = SubspaceOneShot(Quadratic(), SubspaceOneShotOptions(), embedding_dim=3)
    with torch.no_grad():
        method.basis_Pk.copy_(torch.randn(P, 3, generator=rng))
        method.mean_P.copy_(torch.randn(P, generator=rng))
        c_Tk, share_T = torch.randn(20, 3, generator=rng) + 1, torch.rand(20, generator=rng)
        share_T /= share_T.sum()
        before = method.mean_P + c_Tk @ method.basis_Pk.T
        a_Tk = method._standardise(c_Tk, share_T)
    after = torch.stack([method.parameters_at(a_k) for a_k in a_Tk])
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(a_Tk.T * share_T @ a_Tk, torch.eye(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(share_T @ a_Tk, torch.zeros(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("budget", [FREE, TIGHT], ids=["noiseless", "private"])
def test_dp_sgd_in_the_whole_space_is_dp_sgd(budget: Budget, door: Any) -> None:
    options: dict[str, Any] = {"steps": 5, "learning_rate": 0.2, "l2_clip_norm": 1.0, "sampling_prob": 0.5}
    target = LinearRegression(4)
    records = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    plain = DPSGD(target, RateOptions(**options), embedding_dim=0)
    inside = SubspaceDPSGD(target, SubspaceDPSGDOptions(**options), embedding_dim=4)
    with torch.no_grad():
        inside.basis_Pk.copy_(torch.eye(4))
    wanted = plain.adapt(door(records, budget), budget, torch.Generator()).theta
    found = inside.adapt(door(records, budget), budget, torch.Generator()).theta
    torch.testing.assert_close(found, wanted)
    inside.scale_k *= 0.5
    assert not torch.allclose(inside.adapt(door(records, budget), budget, torch.Generator()).theta, wanted, rtol=0.05)


def test_dp_sgd_stays_in_the_subspace_and_finds_its_best_point(door: Any) -> None:
    options = SubspaceDPSGDOptions(**PHASE, l2_clip_norm=100.0, learning_rate=0.3, steps=100, optimizer="adam")
    method = SubspaceDPSGD(Quadratic(), options, embedding_dim=K)
    method.load_state_dict(trained().state_dict())
    records = private_records()
    theta = method.adapt(door(records, FREE), FREE, torch.Generator()).theta
    np.testing.assert_allclose(theta.numpy(), least_squares(records), atol=0.01)
    assert np.abs(theta.numpy() - least_squares(private_records(seed=2))).max() > 0.05
    noisy = method.adapt(door(records, TIGHT), TIGHT, torch.Generator()).theta - method.mean_P.detach()
    basis = method.basis_Pk.detach()
    torch.testing.assert_close(basis @ (basis.T @ noisy), noisy, atol=1e-4, rtol=1e-3)


def test_one_shot_without_noise_is_least_squares(door: Any) -> None:
    method, records = trained(), private_records()
    theta = method.adapt(door(records, FREE), FREE, torch.Generator()).theta.numpy()
    wanted, b = least_squares(records), method.mean_P.detach().numpy()
    assert np.linalg.norm(theta - wanted) < 0.05 * np.linalg.norm(wanted - b)
    other = least_squares(private_records(seed=2))
    assert np.linalg.norm(theta - other) > 0.3 * np.linalg.norm(other - b)


def test_one_shot_at_infinite_noise_is_the_public_mean() -> None:
    method, far_k = trained(), torch.tensor([5.0, -3.0])
    at_infinity = method.parameters_at(method.decoder(far_k, math.inf, 100.0))
    assert torch.equal(at_infinity, method.mean_P.detach())
    assert not torch.allclose(method.parameters_at(method.decoder(far_k, 0.1, 100.0)), at_infinity, atol=0.01)


def test_codes_are_record_wise() -> None:
    method, records = trained(), private_records(size=6)
    rng = torch.Generator()
    assert guards.record_wise(lambda x: method._codes_at_mean(x, rng), records) is None
    whole = guards.record_wise(lambda x: method._codes_at_mean(x, rng) - method._codes_at_mean(x, rng).mean(0), records)
    assert whole is not None


@pytest.mark.parametrize("k", [0, P + 1])
def test_a_subspace_needs_some_dimensions_but_not_more_than_there_are(k: int) -> None:
    with pytest.raises(UserError, match=f"embedding_dim = {k}"):
        SubspaceOneShot(Quadratic(), SubspaceOneShotOptions(), embedding_dim=k)
