"""The synthetic linear setting of the theory: many regression tasks whose weights share a subspace.

Public and tuning tasks are w = U a with U orthonormal d×k and a uniform on the unit sphere. Private tasks are
turned out of that subspace by an angle: w = U a cos θ + U⊥ b sin θ, b uniform on the unit sphere. Records are
x ~ N(0, I_d) with y = ⟨w, x⟩ + N(0, σ²). Every ‖w‖ is 1, so that an excess risk of 1 is that of predicting 0.
Guarantees that equal specs give equal data and that no two splits share a record or a task. It says nothing about
real data: there is no covariance, no outlier and no task without signal.

Shapes: B tasks, n records of each, d features, k dimension of the shared subspace.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dphyper.bench.tasks import Collection, Split, Task
from dphyper.core.errors import UserError, unknown_name
from dphyper.core.specs import DataSpec


@dataclass(frozen=True, kw_only=True)
class LinearSpec:
    """One linear world.

    Attributes:
        d: Features of a record.
        k: Dimension of the shared subspace, at least 1 and below d.
        noise_std: σ, standard deviation of the label noise, at least 0.
        angle: θ in degrees, from 0 (private tasks inside the subspace) to 90 (orthogonal to it).
        public_tasks: Number of public tasks.
        public_size: Records of each public or tuning task.
        tuning_tasks: Number of tuning tasks.
        private_tasks: Number of private tasks.
        private_size: Records of each private task.
        seed: Fixes everything.
    """

    d: int = 50
    k: int = 2
    noise_std: float = 0.5
    angle: float = 0.0
    public_tasks: int = 100
    public_size: int = 128
    tuning_tasks: int = 4
    private_tasks: int = 4
    private_size: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.k < self.d:
            raise UserError(f"k = {self.k} with d = {self.d}: expected at least 1 and below d")
        if not 0 <= self.angle <= 90:
            raise UserError(f"angle = {self.angle}: expected degrees from 0 to 90")
        if self.noise_std < 0:
            raise UserError(f"noise_std = {self.noise_std}: expected at least 0")


class LinearWorld:
    """The shared subspace of one world, and draws of tasks and records from it.

    Args:
        d: Features.
        k: Dimension of the subspace.
        noise_std: σ of the labels.
        seed: Fixes the subspace and, with the calls in the same order, every draw.

    Attributes:
        basis_dk: U, orthonormal and uniformly random.

    >>> world = LinearWorld(d=4, k=2, noise_std=0.0, seed=0)
    >>> w_Bd = world.weights(3, angle=30.0)
    >>> [round(x, 3) for x in (w_Bd @ world.basis_dk).norm(dim=1).tolist()]  # cos 30°
    [0.866, 0.866, 0.866]
    """

    def __init__(self, *, d: int, k: int, noise_std: float, seed: int) -> None:
        self.noise_std = noise_std
        self.rng = torch.Generator().manual_seed(seed)
        self.basis_dk = torch.linalg.qr(torch.randn(d, k, generator=self.rng)).Q

    def weights(self, num: int, *, angle: float = 0.0) -> Tensor:
        """(num, d) weights of norm 1, turned by ``angle`` degrees out of the subspace."""
        d, k = self.basis_dk.shape
        inside_Bd = torch.randn(num, k, generator=self.rng) @ self.basis_dk.T
        outside_Bd = torch.randn(num, d, generator=self.rng)
        outside_Bd = outside_Bd - outside_Bd @ self.basis_dk @ self.basis_dk.T
        theta = math.radians(angle)
        unit = torch.nn.functional.normalize
        return unit(inside_Bd, dim=1) * math.cos(theta) + unit(outside_Bd, dim=1) * math.sin(theta)

    def records(self, w_Bd: Tensor, n: int) -> Tensor:
        """(B, n, d + 1) records of these tasks, the label last."""
        x_Bnd = torch.randn(len(w_Bd), n, w_Bd.shape[1], generator=self.rng)
        noise_Bn = torch.randn(len(w_Bd), n, generator=self.rng) * self.noise_std
        y_Bn = (x_Bnd @ w_Bd[:, :, None])[..., 0] + noise_Bn
        return torch.cat([x_Bnd, y_Bn[..., None]], dim=2)


def make(spec: LinearSpec) -> Collection:
    """The collection of one world: float32 records (N, d + 1), one family for each task.

    >>> collection = make(LinearSpec(d=5, public_tasks=3, private_tasks=2, private_size=10))
    >>> collection.records.shape, [task.id for task in collection.select("private")]
    ((916, 6), ['private/0', 'private/1'])
    """
    world = LinearWorld(d=spec.d, k=spec.k, noise_std=spec.noise_std, seed=spec.seed)
    pools: list[Tensor] = []
    tasks: list[Task] = []
    plan: tuple[tuple[Split, int, int, float], ...] = (
        ("public", spec.public_tasks, spec.public_size, 0.0),
        ("tuning", spec.tuning_tasks, spec.public_size, 0.0),
        ("private", spec.private_tasks, spec.private_size, spec.angle),
    )
    start = 0
    for split, num, size, angle in plan:
        pools.append(world.records(world.weights(num, angle=angle), size).flatten(0, 1))
        for index in range(num):
            rows = torch.arange(start, start := start + size).numpy()
            name = f"{split}/{index}"
            distance = "near" if angle == 0 else f"{angle:g}°"
            tasks.append(Task(id=name, family=name, split=split, indices=rows, distance=distance))
    return Collection(name="linear", records=torch.cat(pools).numpy(), tasks=tuple(tasks), licence="synthetic")


def load(spec: DataSpec) -> Collection:
    """Load ``linear`` or ``linear:d=50,k=2,angle=15``, any fields of `LinearSpec` behind the colon.

    Raises:
        UserError: An unknown field, a value that is no number, or a spec out of range.
    """
    known: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(LinearSpec)}
    values: dict[str, Any] = {}
    for part in filter(None, spec.argument.split(",")):
        name, _, text = part.partition("=")
        if name not in known:
            raise unknown_name("field of data source 'linear'", name, known)
        try:
            values[name] = known[name](text)
        except ValueError:
            raise UserError(f"data.source = '{spec.source}': expected a number for {name}, got '{text}'") from None
    return make(LinearSpec(**values))
