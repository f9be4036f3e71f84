"""The random parts of a point: its worlds, what is learned from their public tasks, and the learned network.

Every purpose has a stream of its own, seeded by a hash of what it is for, so equal arguments give equal data in any
order of calls. Results that points share are kept for as long as a worker meets such points in turn.

Shapes: as in `dphyper.studies.theory.hypernetworks`.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from dphyper.core.specs import content_hash
from dphyper.methods.hypernetwork import Hypernetwork, HypernetworkOptions
from dphyper.studies.theory.hypernetworks import meta_train
from dphyper.studies.theory.knowledge import PublicKnowledge, learn_from_public_tasks
from dphyper.studies.theory.points import CENTRE, NOISE_STD, Point
from dphyper.studies.theory.worlds import LinearWorld

LEARNED = HypernetworkOptions(
    train_steps=3000,
    tasks=64,
    support=64,
    query=64,
    width=128,
    learning_rate=3e-3,
    # Most tasks are seen without noise: there the decoder has to be exact, while under noise any is good enough.
    clean_fraction=0.5,
    prior_fraction=0.03,
)


def derive_seed(*parts: object) -> int:
    """A seed of 60 bits that is fixed by what it is for."""
    return int(content_hash([*parts])[:15], 16)


def make_world(point: Point, index: int, purpose: str) -> LinearWorld:
    """World number ``index`` of these dimensions, its stream set for one purpose."""
    world = LinearWorld(d=point.d, k=point.k, noise_std=NOISE_STD, seed=index)
    world.rng.manual_seed(derive_seed(point.d, point.k, index, purpose))
    return world


def learn_public(point: Point, index: int) -> PublicKnowledge:
    """What the public tasks of world ``index`` teach; the same for every n, ε and angle."""
    return _learn_public(point.d, point.k, point.public_tasks, point.public_size, index)


@lru_cache(maxsize=8)
def _learn_public(d: int, k: int, public_tasks: int, public_size: int, index: int) -> PublicKnowledge:
    draw = _public_records(Point(d=d, k=k, public_size=public_size), index)
    return learn_from_public_tasks(draw, tasks=public_tasks, size=public_size, k=k, d=d)


def _public_records(point: Point, index: int) -> Callable[[int], Tensor]:
    """Draws the records of some more public tasks; the same calls in the same order give the same records."""
    world = make_world(point, index, "public")
    return lambda num: world.draw_records(world.draw_weights(num), point.public_size)


@lru_cache(maxsize=8)
def train_network(index: int) -> Hypernetwork:
    """The learned form, trained at the centre of the study; one network serves all n, ε and angles there.

    It meets the very records that Û comes from, drawn once more, and no other.
    """
    draw, chunks = _public_records(CENTRE, index), list[Tensor]()

    def draw_and_keep(num: int) -> Tensor:
        chunks.append(draw(num))
        return chunks[-1]

    public = learn_from_public_tasks(
        draw_and_keep, tasks=CENTRE.public_tasks, size=CENTRE.public_size, k=CENTRE.k, d=CENTRE.d
    )
    return meta_train(torch.cat(chunks), public, LEARNED, seed=index)
