"""What public phases are dealt: support and query apart, weights that sum to 1, shares and mixtures as asked."""

import numpy as np
import pytest
import torch

from dphyper.bench.public import Episode, PublicRecords, PublicTasks
from dphyper.bench.tasks import Collection, Task
from dphyper.core.errors import UserError
from dphyper.targets.diffusion import to_unit

FAMILIES, CLUSTERS, SIZE = 4, 12, 40


@pytest.fixture
def collection() -> Collection:
    """Disjoint tasks, each record an image of its own; one tuning task and one private one at the end."""
    num = FAMILIES + CLUSTERS + 2
    records = np.zeros((num * SIZE, 2, 2, 1), np.uint8)
    records[:, 0, 0, 0], records[:, 0, 1, 0] = np.divmod(np.arange(num * SIZE), 256)
    kinds = ["family"] * FAMILIES + ["cluster"] * CLUSTERS + ["family"] * 2
    splits = ["public"] * (num - 2) + ["tuning", "private"]
    tasks = tuple(
        Task(id=str(i), family=str(i), split=split, indices=np.arange(SIZE) + i * SIZE, kind=kind)  # type: ignore[arg-type]
        for i, (split, kind) in enumerate(zip(splits, kinds, strict=True))
    )
    return Collection(name="toy", records=records, tasks=tasks)


def deal(collection: Collection, **changes: float) -> list[Episode]:
    asked = {"seed": 0, "tasks": 8, "support": 24, "query": 4, "steps": 50, **changes}
    return list(PublicTasks(collection, to_unit, **asked).train_dataloader())  # type: ignore[arg-type]


def sources(episodes: list[Episode]) -> list[set[int]]:
    """The tasks that the records of each dealt task come from."""
    return [
        set((row[weight > 0] // SIZE).tolist()) | set((query // SIZE).tolist())
        for episode in episodes
        for row, weight, query in zip(episode.support_TS, episode.weight_TS, episode.query_TQ, strict=True)
    ]


def test_support_and_query_share_no_record_and_weights_sum_to_one(collection: Collection) -> None:
    for episode in deal(collection, mixture=0.5):
        assert np.allclose(episode.weight_TS.sum(1), 1)
        for row, weight, query in zip(episode.support_TS, episode.weight_TS, episode.query_TQ, strict=True):
            used = row[weight > 0].tolist()
            assert len(used) >= 16
            assert len(set(used)) == len(used)
            assert not set(used) & set(query.tolist())


def test_only_public_tasks_are_dealt_and_clusters_as_often_as_their_weight_says(collection: Collection) -> None:
    for weight in (0.0, 0.125, 1.0):
        found = sources(deal(collection, cluster_weight=weight))
        assert all(len(tasks) == 1 for tasks in found)
        dealt = np.array([next(iter(tasks)) for tasks in found])
        assert dealt.max() < FAMILIES + CLUSTERS
        expected = CLUSTERS * weight / (FAMILIES + CLUSTERS * weight)
        assert (dealt >= FAMILIES).mean() == pytest.approx(expected, abs=0.08)  # of 400


def test_mixtures_are_unions_of_two_to_eight_tasks(collection: Collection) -> None:
    counts = [len(tasks) for tasks in sources(deal(collection, mixture=1.0, support=24))]
    assert 6 <= max(counts) <= 8
    assert min(counts) <= 2
    assert all(len(tasks) == 1 for tasks in sources(deal(collection, mixture=0.0)))
    share = np.mean([len(tasks) > 1 for tasks in sources(deal(collection, mixture=0.5))])
    assert 0.35 < share < 0.55  # now and then a task meets itself


def test_few_families_are_dealt_without_clusters_and_lie_within_more(collection: Collection) -> None:
    dealt = {count: set.union(*sources(deal(collection, families=count))) for count in (1, 3, FAMILIES)}
    assert {count: len(tasks) for count, tasks in dealt.items()} == {1: 1, 3: 3, FAMILIES: FAMILIES}
    assert dealt[1] < dealt[3] < dealt[FAMILIES] == set(range(FAMILIES))
    for wrong in (-1, FAMILIES + 1):
        with pytest.raises(UserError, match=f"families = {wrong}: 'toy' has {FAMILIES} public families"):
            deal(collection, families=wrong)


def test_records_for_adaptation_come_from_public_tasks_alone(collection: Collection) -> None:
    public = PublicRecords.of(collection, to_unit)
    assert len(public.records) == (FAMILIES + CLUSTERS) * SIZE
    drawn = public.draw(200, 4, torch.Generator().manual_seed(0))
    assert drawn.shape == (200, 4, 1, 2, 2)
    pixels = ((drawn + 1) * 127.5).round().long().flatten(2)
    tasks = (pixels[..., 0] * 256 + pixels[..., 1]) // SIZE
    assert (tasks == tasks[:, :1]).all()
    families = float((tasks[:, 0] < FAMILIES).float().mean())
    assert families == pytest.approx(FAMILIES / (FAMILIES + CLUSTERS / 8), abs=0.1)
    assert public.draw(1, 2 * SIZE, torch.Generator()).shape[1] == 2 * SIZE  # more than the task has
