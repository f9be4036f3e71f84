"""A small world of the theory and what its public tasks teach, shared by the tests of its modules."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
from torch import Tensor

from dphyper.studies.theory.knowledge import PublicKnowledge, learn_from_public_tasks
from dphyper.studies.theory.worlds import LinearWorld


class Small(NamedTuple):
    """A world of d = 20, k = 2, what was learned, and the public records that it was learned from."""

    world: LinearWorld
    public: PublicKnowledge
    records_Tmd1: Tensor

    def draw(self, tasks: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """(B, n, d) features, (B, n) labels and (B, d) weights of new tasks inside the subspace."""
        w_Bd = self.world.draw_weights(tasks)
        records_Bnd1 = self.world.draw_records(w_Bd, n)
        return records_Bnd1[..., :-1], records_Bnd1[..., -1], w_Bd


@pytest.fixture(scope="session")
def small_world() -> Callable[..., Small]:
    """Makes the same small world at every call, from ``tasks`` public tasks of 128 records."""

    def make(tasks: int = 300) -> Small:
        world = LinearWorld(d=20, k=2, noise_std=0.5, seed=3)
        records_Tmd1 = world.draw_records(world.draw_weights(tasks), 128)
        return Small(
            world, learn_from_public_tasks(lambda num: records_Tmd1, tasks=tasks, size=128, k=2, d=20), records_Tmd1
        )

    return make
