"""Public data for every public phase: one LightningDataModule that all methods and the base model share.

It deals *episodes*: a few tasks at a time, each split into a support set (what would be the private records)
and a query set (what the adapted model is judged on), with no record in both. It holds public and tuning
records only; the private ones were left behind when it was built, so no public stage can read them.

Shapes: T tasks in an episode, S support rows, Q query rows; rows index `PublicTasks.records`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from dphyper.bench.appearance import alter
from dphyper.bench.tasks import Collection, Split, Task
from dphyper.core.errors import UserError

Rows = NDArray[np.int64]
Encode = Callable[[NDArray[Any]], Tensor]
"""Records of a collection as the tensor that a target takes: `Target.encode`."""

COPIED = 160  # records of an altered copy: enough for a support and a query, and a bound on memory

# Raised when episodes come to be dealt in another way: what was trained before is then not taken for the present.
DEALER_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One batch.

    Attributes:
        support_TS: Rows of the support records. Tasks draw between 16 and S records, log-uniformly, as far as
            they have them; the surplus columns repeat records and have weight 0.
        weight_TS: Weight of each support row in its task's mean; a task's weights sum to 1.
        query_TQ: Rows of the query records.
        task_T: Index of each task in its split; of a mixture, of the task that it began with.
    """

    support_TS: Tensor
    weight_TS: Tensor
    query_TQ: Tensor
    task_T: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> "Episode":
        """The same episode on another device; Lightning's batch transfer calls this."""
        move = {name: value.to(device, non_blocking=non_blocking) for name, value in vars(self).items()}
        return Episode(**move)


@dataclass(frozen=True, kw_only=True, eq=False)
class PublicRecords:
    """Records of the public tasks, for methods that look at public data while they adapt.

    Attributes:
        records: (N, ...) as the target takes them.
        tasks: Rows of each task.
        shares: Probability of each task to be drawn.
    """

    records: Tensor
    tasks: tuple[Rows, ...]
    shares: NDArray[np.float64]

    @classmethod
    def of(cls, collection: Collection, encode: Encode, cluster_weight: float = 0.125) -> "PublicRecords":
        """The records of the public tasks; a cluster weighs ``cluster_weight`` of a family."""
        public = collection.select("public")
        kept = np.unique(np.concatenate([task.indices for task in public]))
        weights = np.asarray([cluster_weight if task.kind == "cluster" else 1.0 for task in public])
        return cls(
            records=encode(collection.records[kept]),
            tasks=tuple(np.searchsorted(kept, task.indices) for task in public),
            shares=weights / weights.sum(),
        )

    def draw(self, tasks: int, each: int, rng: torch.Generator) -> Tensor:
        """``each`` records of each of ``tasks`` public tasks, (T, Q, ...); a small task repeats some of its records."""
        numpy_rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=rng)))
        chosen = numpy_rng.choice(len(self.tasks), tasks, p=self.shares)
        rows = np.stack([np.resize(numpy_rng.permutation(self.tasks[task]), each) for task in chosen])
        return self.records[torch.from_numpy(rows).to(self.records.device)]


class PublicTasks(lightning.LightningDataModule):
    """Episodes of the public tasks for training and of the tuning tasks for validation.

    Args:
        collection: Its public and tuning tasks are copied, nothing else.
        encode: Of the target that is trained.
        seed: Fixes the episodes.
        tasks: T.
        support: S, 0 for none.
        query: Q.
        steps: Training batches.
        cluster_weight: How often a cluster is dealt in training, relative to a family. Clusters are coherent by
            construction and many; private data are more like families.
        mixture: Share of the training tasks that are mixtures: the union of two to eight public tasks, so that
            broad and incoherent data sets are met as well.
        appearances: Altered copies of public tasks (`dphyper.bench.appearance`) that are dealt beside them in training.
            A copy has one alteration, drawn at random, and at most `COPIED` records.
        altered: Share of the training tasks that are altered copies.
        families: Deal so many public families and no cluster, which would show more than these; a smaller choice lies
            within a larger one. 0 for all families and clusters.
        validation_steps: Validation batches; 0, or a collection without tuning tasks, for none.

    Attributes:
        records: (N, ...) all public and tuning records, encoded.
        begin_at: Training batches that are left out at the beginning, for a training that goes on.
    """

    def __init__(
        self,
        collection: Collection,
        encode: Encode,
        *,
        seed: int,
        tasks: int,
        query: int,
        steps: int,
        support: int = 0,
        cluster_weight: float = 1.0,
        mixture: float = 0.0,
        appearances: int = 0,
        altered: float = 0.0,
        families: int = 0,
        validation_steps: int = 0,
    ) -> None:
        super().__init__()
        dealt = {"public": _some_families(collection, families), "tuning": collection.select("tuning")}
        kept = np.unique(np.concatenate([task.indices for some in dealt.values() for task in some]))
        self.records = encode(collection.records[kept])
        self.rows = {split: [np.searchsorted(kept, task.indices) for task in some] for split, some in dealt.items()}
        self.seed, self.tasks, self.support, self.query = seed, tasks, support, query
        self.mixture, self.altered = mixture, altered if appearances else 0.0
        weights = [cluster_weight if task.kind == "cluster" else 1.0 for task in dealt["public"]]
        self.plain_shares = np.asarray(weights) / np.sum(weights)
        self.shares: dict[Split, NDArray[np.float64]] = {}
        self._add_copies(collection, dealt["public"], appearances, encode)
        self.begin_at = 0
        self.steps, self.validation_steps = steps, validation_steps if self.rows["tuning"] else 0

    def _add_copies(self, collection: Collection, public: Sequence[Task], appearances: int, encode: Encode) -> None:
        """Append the records of altered copies, and the rows of each copy to those of the public tasks."""
        if appearances and collection.records.dtype != np.uint8:
            raise UserError(
                f"appearances = {appearances}: '{collection.name}' holds no images, expected 0 for other records"
            )
        rng = np.random.default_rng([self.seed, appearances])
        begin, parts = len(self.records), [self.records]
        for chosen in rng.choice(len(public), appearances, p=self.plain_shares):
            some = rng.permutation(public[chosen].indices)[:COPIED]
            parts.append(encode(alter(collection.records[some], rng)))
            self.rows["public"].append(np.arange(begin, begin := begin + len(some)))
        self.records = torch.cat(parts)
        copies = np.full(appearances, self.altered / max(appearances, 1))
        self.shares["public"] = np.concatenate([(1 - self.altered) * self.plain_shares, copies])

    def train_dataloader(self) -> DataLoader[Episode]:
        """Episodes of public tasks."""
        return DataLoader(_Episodes(self, "public", self.steps), batch_size=None)

    def val_dataloader(self) -> list[DataLoader[Episode]]:
        """Episodes of tuning tasks, the same ones every time."""
        if not self.validation_steps:
            return []
        return [DataLoader(_Episodes(self, "tuning", self.validation_steps), batch_size=None)]


def _some_families(collection: Collection, families: int) -> tuple[Task, ...]:
    """The public tasks, or the first so many public families of a fixed shuffle."""
    public = collection.select("public")
    if not families:
        return public
    known = [task for task in public if task.kind != "cluster"]
    if not 0 <= families <= len(known):
        raise UserError(
            f"families = {families}: '{collection.name}' has {len(known)} public families, expected at most so "
            "many, or 0 for all of them and their clusters"
        )
    return tuple(known[i] for i in np.random.default_rng(0).permutation(len(known))[:families])


class _Episodes(IterableDataset[Episode]):
    def __init__(self, data: PublicTasks, split: Split, steps: int) -> None:
        self.data, self.split, self.steps = data, split, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Episode]:
        data, rows = self.data, self.data.rows[self.split]
        rng = np.random.default_rng([data.seed, len(self.split)])
        begin_at = data.begin_at if self.split == "public" else 0
        for step in range(self.steps):
            chosen = rng.choice(len(rows), data.tasks, p=data.shares.get(self.split))
            dealt = [self._deal(self._mixed(task, rng), rng) for task in chosen]
            if step < begin_at:
                continue
            support, weight, query = (torch.from_numpy(np.stack(part)) for part in zip(*dealt, strict=True))
            yield Episode(support_TS=support, weight_TS=weight, query_TQ=query, task_T=torch.from_numpy(chosen))

    def _mixed(self, task: int, rng: np.random.Generator) -> Rows:
        """The task itself, or now and then its union with one to seven unaltered others, each with the same weight."""
        data = self.data
        rows = data.rows[self.split][task]
        if self.split != "public" or task >= len(data.plain_shares) or rng.uniform() >= data.mixture:
            return rows
        count = int(2 * 4.5 ** rng.uniform())  # log-uniform, as the size of the support is
        others = rng.choice(len(data.plain_shares), count - 1, p=data.plain_shares)
        parts = [rows, *(data.rows["public"][other] for other in others)]
        size = min(len(part) for part in parts)
        return np.unique(np.concatenate([rng.permutation(part)[:size] for part in parts]))

    def _deal(self, rows: Rows, rng: np.random.Generator) -> tuple[Rows, NDArray[np.float32], Rows]:
        """Support rows, their weights and query rows of one task."""
        order = rng.permutation(rows)
        num_query = min(self.data.query, max(len(order) // 2, 1))
        query, rest = order[:num_query], order[num_query:]
        size = self.data.support
        if not size:
            return rest[:0], np.zeros(0, np.float32), np.resize(query, self.data.query)
        low, high = min(16, len(rest)), min(size, len(rest))
        count = int(np.exp(rng.uniform(np.log(low), np.log(high + 1))))
        weight = np.where(np.arange(size) < count, 1 / count, 0).astype(np.float32)
        return np.resize(rest[:count], size), weight, np.resize(query, self.data.query)
