"""The plan of the theory study: its points, and the axes on which they lie.

A point is one linear world, a size of the private data sets, a budget, an angle between the private tasks and the
public subspace, and a number and size of public tasks. Nothing is run here.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from dphyper.privacy.budget import Budget, Relation

DELTA = 1e-5
NOISE_STD = 0.5  # σ of the labels
ANGLES = (0.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of the study.

    Attributes:
        d: Features.
        k: Dimension of the shared subspace and of the embedding.
        n: Private records.
        epsilon: ε, ``inf`` for no privacy.
        angle: Degrees between private tasks and the public subspace.
        public_tasks: Number of public tasks.
        public_size: Records of each.
    """

    d: int = 200
    k: int = 8
    n: int = 512
    epsilon: float = 2.0
    angle: float = 0.0
    public_tasks: int = 1000
    public_size: int = 128

    @property
    def budget(self) -> Budget:
        """The budget, under add-or-remove-one."""
        return Budget(epsilon=self.epsilon, delta=DELTA, relation=Relation.ADD_OR_REMOVE_ONE)


CENTRE = Point()


def plan_points() -> Iterator[tuple[str, Point]]:
    """Every axis with each of its points; a point may lie on several axes."""
    base = CENTRE
    for epsilon in (0.5, 2.0):
        yield from (("n", dataclasses.replace(base, n=2**i, epsilon=epsilon)) for i in range(5, 13))
        yield from (("d", dataclasses.replace(base, d=d, epsilon=epsilon)) for d in (50, 100, 200, 400, 800, 1000))
        yield from (("k", dataclasses.replace(base, k=k, epsilon=epsilon)) for k in (2, 4, 8, 16, 32))
    for n, epsilon in product((128, 1024), (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, math.inf)):
        yield "epsilon", dataclasses.replace(base, n=n, epsilon=epsilon)
    yield from (("d x k", dataclasses.replace(base, d=d, k=k)) for d, k in product((50, 200, 1000), (2, 8, 32)))
    for n, epsilon in product((512, 4096), (2.0, 8.0)):
        cross = dataclasses.replace(base, n=n, epsilon=epsilon)
        yield from (("angle", dataclasses.replace(cross, angle=angle)) for angle in ANGLES)
        yield from (("public_tasks", dataclasses.replace(cross, public_tasks=2**i)) for i in range(3, 13))
    yield from (("public_size", dataclasses.replace(base, public_size=m)) for m in (8, 32, 128, 512))
