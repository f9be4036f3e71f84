"""What the tests of methods share: a door to records, linear regression, and grey images on a tiny diffusion model."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dphyper.audits import contract
from dphyper.bench.catalog import METHODS
from dphyper.bench.public import PublicRecords
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData
from dphyper.studies.theory.regression import LinearRegression

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def private_data(records: Tensor, budget: Budget = FREE, seed: int = 0) -> PrivateData:
    return PrivateData(records, n=len(records), ledger=Ledger(budget), noise=NoiseSource.reproducible(seed))


@pytest.fixture
def door() -> Callable[..., PrivateData]:
    """Records, budget and seed to the door to these records, with reproducible noise."""
    return private_data


class Regression:
    """Methods on linear regression, whose loss draws nothing.

    Two methods with one noise source therefore differ only in what they do with public gradients.

    Args:
        private: (40, d + 1) records that are adapted to.
        public: Public records, in ``tasks`` tasks of equal size.
        tasks: Number of public tasks.
        defaults: Options of `adapt` where none are given.
    """

    def __init__(self, private: Tensor, public: Tensor, tasks: int, **defaults: Any) -> None:
        self.private, self.public, self.tasks, self.defaults = private, public, tasks, defaults
        self.dimension = private.shape[1] - 1

    def method(self, name: str, *, public: Tensor | None = None, target: Any = None, **options: Any) -> Any:
        kind = METHODS[name]
        made: Any = kind(
            target or LinearRegression(self.dimension), kind.options_type.parse(name, options), embedding_dim=0
        )
        if made.reads_public:
            records = self.public if public is None else public
            rows = np.arange(len(records)).reshape(self.tasks, -1)
            made.public = PublicRecords(records=records, tasks=tuple(rows), shares=np.full(self.tasks, 1 / self.tasks))
        return made

    def guide(self, name: str, **given: Any) -> Any:
        """The guide of a method; its generator has the seed 3. Arguments are those of `method`."""
        made = self.method(name, **given)
        return made.guide_type(made.target, made.options, seeded(3), made.public)

    def prepared(self, name: str, **given: Any) -> Any:
        """The guide of a method, ready for its first step at θ = 0."""
        guide = self.guide(name, **given)
        guide.prepare(guide.target.initial(), 0)
        return guide

    def published(self, step: Callable[[Tensor, Tensor, int], Tensor], steps: int) -> Tensor:
        """Parameters after ``steps`` steps of momentum 0.9 and linear decay along a published formula's direction.

        Args:
            step: From the (n, d) private gradients, the mean public one and the number of the step.
            steps: T.
        """
        target = LinearRegression(self.dimension)
        theta, momentum = torch.zeros(self.dimension), torch.zeros(self.dimension)
        for t in range(steps):
            g = target.per_example_gradients(theta, self.private, seeded(0), 1)
            h = target.per_example_gradients(theta, self.public, seeded(0), 1).mean(0)
            momentum = 0.9 * momentum + step(g, h, t)
            theta = theta - 0.3 * (1 - 0.9 * t / steps) * momentum
        return theta

    def adapt(self, name: str, budget: Budget = FREE, **given: Any) -> Tensor:
        """Parameters from the private records, always with the same noise."""
        made = self.method(name, **{**self.defaults, **given})
        theta: Tensor = made.adapt(private_data(self.private, budget), budget, seeded(3)).theta
        return theta


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


@pytest.fixture
def regression() -> Regression:
    """Records of the weights 1, …, 1 in six dimensions; eight public tasks of eight records."""

    def records(n: int, seed: int) -> Tensor:
        x = normal(n, 6, seed=seed)
        return torch.cat([x, x.sum(1, keepdim=True) + 0.1 * normal(n, 1, seed=seed + 100)], 1)

    return Regression(records(40, 1), records(64, 2), 8, steps=5, learning_rate=0.1, l2_clip_norm=2.0)


@pytest.fixture
def stretched() -> Regression:
    """Records in five dimensions of unequal variance; one public task of 30 records."""

    def records(n: int, seed: int) -> Tensor:
        rng = seeded(seed)
        x = torch.randn(n, 5, generator=rng) * torch.tensor([3.0, 1.0, 1.0, 0.3, 0.1])
        return torch.cat([x, x.sum(1, keepdim=True) + 0.5 * torch.randn(n, 1, generator=rng)], 1)

    return Regression(records(40, 0), records(30, 1), 1, steps=4, l2_clip_norm=1.0, learning_rate=0.3, average_last=0.0)


@pytest.fixture
def equal_only() -> Callable[[Tensor, Tensor, Tensor], None]:
    """Asserts that a tensor equals the second one and not the third."""

    def check(found: Tensor, equal: Tensor, different: Tensor) -> None:
        torch.testing.assert_close(found, equal, rtol=1e-4, atol=1e-6)
        assert float((found - different).norm()) > 0.01 * float(found.norm())

    return check


class Greys:
    """Methods on the tiny diffusion model, with six public tasks of 16 images, each around a grey of its own.

    Attributes:
        target: The model.
        levels: The greys, from -1 to 1.
        public: The public tasks.
    """

    levels = np.linspace(-0.9, 0.9, 6).tolist()

    def __init__(self) -> None:
        self.target = contract.tiny_target()
        self.public = PublicRecords(
            records=torch.cat([self.images(level, 16, seed) for seed, level in enumerate(self.levels)]),
            tasks=tuple(np.arange(96).reshape(6, 16)),
            shares=np.full(6, 1 / 6),
        )

    def images(self, level: float, n: int, seed: int = 0) -> Tensor:
        """(n, 1, 8, 8) images around one grey."""
        return (level + 0.1 * normal(n, 1, 8, 8, seed=seed)).clamp(-1, 1)

    def method(self, name: str, **options: Any) -> Any:
        """A method of four dimensions."""
        kind = METHODS[name]
        made: Any = kind(self.target, kind.options_type.parse(name, options), embedding_dim=4)
        made.public = self.public
        return made.eval()


@pytest.fixture(scope="session")
def greys() -> Greys:
    """A tiny diffusion model and public tasks of one grey each."""
    return Greys()
