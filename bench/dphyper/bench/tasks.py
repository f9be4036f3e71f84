"""Tasks and collections: the data side of the contract.

A collection is one pool of records and many tasks that index into it. Every task belongs to one family and
every family to one split: *public* tasks train the base model and the hypernetwork, *tuning* tasks are public
families held out so that hyper-parameters can be chosen on them at no privacy cost, *private* tasks are
families that no public stage has seen. The constructor refuses a collection in which two splits share a
record, by index or by content. It cannot see near duplicates: the sources that come with the harness leave them out
and say so in ``remarks``.

Shapes: N pool size, n private records, H W C image height, width, channels.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dphyper.core.errors import UserError, unknown_name
from dphyper.core.names import family_name

Split = Literal["public", "tuning", "private"]
Kind = Literal["family", "cluster"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """One dataset of a collection.

    Attributes:
        id: Unique within the collection, for instance ``"umbrella"`` or ``"umbrella/2of5"``.
        family: What the task was cut from; all tasks of a family lie in one split.
        split: ``public``, ``tuning`` or ``private``.
        indices: Rows of the collection's pool that belong to the task, unique.
        reference: Rows of the pool that only serve as evaluation reference (a source's own test split); empty
            when the source has none.
        distance: How the source describes the way to the public families ("near", "far"); free text for
            reports.
        kind: ``family`` for what the source's labels name, ``cluster`` for a public task found in the images.
        development: Whether its family has prompted a decision of the design, so that a method may have been made to do
            well on it.
    """

    id: str
    family: str
    split: Split
    indices: NDArray[np.int64]
    reference: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    distance: str = "near"
    kind: Kind = "family"
    development: bool = False

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True, kw_only=True, eq=False)
class Draw:
    """A private subset and the reference it is judged against; they share no record.

    Attributes:
        records: (n, ...) private records.
        reference: (m, ...) the whole rest of the task, and its test split where there is one.
    """

    records: NDArray[np.generic]
    reference: NDArray[np.generic]


@dataclass(frozen=True, kw_only=True, eq=False)
class Collection:
    """Many tasks over one pool of records.

    Attributes:
        name: For reports.
        records: (N, H, W, C) uint8 images, or (N, d + 1) float regression records.
        tasks: All tasks of all splits.
        licence: Licence and source of the data, one line, for the report.
        show_reference: Whether images of held-out families may be shown.
        passed_over: What was left out of the source and counts for nothing, in words with its number, for the user
            alone: the words tell of private records.
        remarks: Lines for the user alone on what was assumed of the images, and which left their split.

    Raises:
        UserError: No public or no private task, a duplicate id, an empty task, or two splits that share a
            record.
    """

    name: str
    records: NDArray[np.generic]
    tasks: tuple[Task, ...]
    licence: str = ""
    show_reference: bool = False
    passed_over: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ids = [task.id for task in self.tasks]
        if len(set(ids)) < len(ids):
            twice = sorted({i for i in ids if ids.count(i) > 1})
            raise UserError(f"collection '{self.name}' has the task id '{twice[0]}' twice: give each task its own")
        for task in self.tasks:
            if not len(task):
                raise UserError(f"task '{task.id}' of collection '{self.name}' has no record: remove it")
        for split in ("public", "private"):
            if not self.select(split):
                raise UserError(f"collection '{self.name}' has no {split} task: name at least one {split} family")
        self._refuse_shared_records()

    def _refuse_shared_records(self) -> None:
        owner: dict[bytes, Task] = {}
        for task in self.tasks:
            for row in np.concatenate([task.indices, task.reference]):
                other = owner.setdefault(self._digests[row], task)
                if other.split != task.split:
                    raise UserError(
                        f"record {row} of collection '{self.name}' lies in the {other.split} task '{other.id}' and "
                        f"in the {task.split} task '{task.id}': a split may share nothing, drop it from one of them"
                    )

    @cached_property
    def _digests(self) -> list[bytes]:
        return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in self.records]

    @property
    def account(self) -> tuple[str, ...]:
        """Lines for the user alone: the remarks, and at last how much there is and what was passed over."""
        families = {task.family for task in self.tasks if task.kind == "family"}
        size = f"{self.name}: {len(self.records):,} records in {len(families):,} families"
        return (*self.remarks, "; passed over: ".join([size, *filter(None, [", ".join(self.passed_over)])]))

    def select(self, split: Split) -> tuple[Task, ...]:
        """All tasks of one split, in the order of the source."""
        return tuple(task for task in self.tasks if task.split == split)

    def task(self, task_id: str) -> Task:
        """The task of that id.

        Raises:
            UserError: There is none; the message names the nearest private or tuning task.
        """
        wanted = family_name(task_id)
        for task in self.tasks:
            if family_name(task.id) == wanted:
                return task
        raise unknown_name("task", task_id, [task.id for task in self.tasks if task.split != "public"])

    def require(self, task_ids: Iterable[str]) -> None:
        """Refuse names of tasks that the collection does not have, all of them at once.

        Raises:
            UserError: There are some; the message names them, and the private and tuning tasks.
        """
        known = {family_name(task.id) for task in self.tasks}
        missing = [task_id for task_id in dict.fromkeys(task_ids) if family_name(task_id) not in known]
        if len(missing) > 1:
            held_out = ", ".join(task.id for task in self.tasks if task.split != "public")
            named = ", ".join(f"'{task_id}'" for task_id in missing)
            raise UserError(f"unknown tasks {named} of '{self.name}': expected some of {held_out}")
        for task_id in missing:
            self.task(task_id)

    def held_out(self, task_id: str) -> Task:
        """The private or tuning task of that id: one that no public stage is trained on.

        Raises:
            UserError: There is no such task, or it is public.
        """
        task = self.task(task_id)
        if task.split == "public":
            others = [f"'{other.id}' ({other.split})" for other in self.tasks if other.split != "public"]
            way = "" if task.kind == "cluster" else ", or name its family in data.private or data.tuning"
            raise UserError(
                f"task '{task_id}' of '{self.name}' is public: the base model is trained on its records, so nothing "
                f"adapted to them is private; expected one of {', '.join(others)}{way}"
            )
        return task

    def draw(self, task_id: str, n: int, seed: int) -> Draw:
        """Draw ``n`` private records without replacement; everything else of the task is the reference.

        Raises:
            UserError: The task is public or unknown, or has no record left for the reference after ``n`` are drawn.
        """
        task = self.held_out(task_id)
        if n >= len(task) + (len(task.reference) > 0):
            raise UserError(
                f"n = {n} records asked of task '{task_id}', which has {len(task)}: take a smaller n, so that a "
                "held-out rest is left as the reference"
            )
        order = np.random.default_rng([seed, *task.id.encode()]).permutation(task.indices)
        reference = np.concatenate([order[n:], task.reference])
        return Draw(records=self.records[order[:n]], reference=self.records[reference])

    def provenance(self, task_id: str, key: bytes) -> str:
        """Keyed hash of the content of one task (its records and its reference), independent of their order.

        Without the key, whoever knows all records but one could test every guess at the last.

        Args:
            task_id: The task.
            key: A secret of 1 to 64 bytes; hashes are comparable under one key only.

        Raises:
            ValueError: The key is empty, or too long for BLAKE2b.
        """
        if not key:
            raise ValueError("the key of a provenance hash is empty: expected 1 to 64 secret bytes")
        task = self.task(task_id)
        rows = np.concatenate([task.indices, task.reference])
        digest = hashlib.blake2b(key=key, digest_size=8)
        for record in sorted(self._digests[row] for row in rows):
            digest.update(record)
        return digest.hexdigest()

    @cached_property
    def public_fingerprint(self) -> str:
        """Hash of all that a public stage may see: public and tuning tasks, their ids and contents.

        Private tasks do not enter, so that adding one does not invalidate a trained hypernetwork, unless public images
        leave because they are copies of its own.
        """
        parts: list[bytes] = [str(self.records.shape[1:]).encode()]
        for task in self.tasks:
            if task.split != "private":
                parts += [
                    task.split.encode(),
                    task.id.encode(),
                    task.kind.encode(),
                    *(self._digests[row] for row in task.indices),
                ]
        return _hash(parts)


def _hash(parts: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]
