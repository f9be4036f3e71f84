"""Cuts one pool of images, sorted into families, into a collection of public, tuning and private tasks.

The order from open to closed is public, tuning, private. Guarantees: no image of a more closed split has a copy in a
more open one, as far as `nearly_equal` finds copies. The copy leaves the more open split, also as a member of a cluster
and as a reference; a private image is never dropped for a public copy. Only public images enter the clustering. Two
loads on one machine give equal tasks.

What is public therefore depends on private images, through the public images that leave. The differential privacy
guarantee does not cover this: an attacker who knows the public pool from elsewhere may learn from the public set, or
from what was trained on it, that a private image has a copy there. The alternative is worse, because a model trained
on the copy voids the guarantee for that record. Which images leave depends on the whole of every family held out, the
reference included, and never on the seed that draws private records. `Collection.remarks` counts them, and so tells of
private records: do not publish it.

Not guaranteed: copies that `nearly_equal` does not find. Clusters may differ in a few images between machines whose
linear algebra rounds differently.

Shapes: N images of the pool, P public images, H W C height, width, channels.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA

from dphyper.bench.source import Source
from dphyper.bench.tasks import Collection, Split, Task
from dphyper.core.errors import UserError, unknown_name
from dphyper.core.names import family_name
from dphyper.core.specs import DataSpec
from dphyper.datasets._duplicates import first_of_equals, nearly_equal
from dphyper.datasets._families import count_noun, merge_by_name

# From open to closed. An image takes the most closed split of its families; of equal images the most closed one stays.
SPLITS: tuple[Split, ...] = ("public", "tuning", "private")
PUBLIC, TUNING, PRIVATE = range(3)

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """All images of a source and their families, before they are split.

    Attributes:
        name: The collection's name, for reports.
        images: (N, H, W, C).
        families: Rows of each family; families may overlap, and images of no family are public.
        private: The source's own choice of private families; the last two, if ``families`` has none of them.
        tuning: The same for tuning families; the last one that is not private, if there is none of them.
        far: Families whose distance from the public ones is called "far".
        development: Families on which a decision of the design was based, as far as they are in ``families``.
        test: (N,) marks the source's test split: references of tuning and private families, and nothing else.
        licence: Licence and source, one line.
        show_reference: Whether the source says that its images may be shown.
        passed_over: What the source itself has left out, in words with its number, for each kind.
        remarks: Lines on what the source has assumed of the images.
        elsewhere: Families that it has and did not read; to name them in ``data.development`` is no mistake.
    """

    name: str
    images: NDArray[np.uint8]
    families: Mapping[str, Rows]
    licence: str
    private: Sequence[str] = ()
    tuning: Sequence[str] = ()
    far: Sequence[str] = ()
    development: Sequence[str] = ()
    test: Mask | None = None
    show_reference: bool = False
    passed_over: Sequence[str] = ()
    remarks: Sequence[str] = ()
    elsewhere: Sequence[str] = ()


class PooledSource(Source):
    """A source that only has to read its images: they are split by `cut`, alone or with those of other sources."""

    @classmethod
    @abstractmethod
    def read(cls, spec: DataSpec) -> Pool:
        """Read all images, at the size and channels in ``spec``.

        Raises:
            UserError: The data are missing or cannot be read; the message says what to do.
        """

    @classmethod
    def load(cls, spec: DataSpec) -> Collection:
        """Read the images, and cut them into tasks.

        Raises:
            UserError: They cannot be read, or `cut` refuses the families.
        """
        return cut(cls.read(spec), spec)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sorted:
    """All images, and what becomes of each.

    Attributes:
        images: (N, H, W, C).
        families: Rows of each family.
        chosen: Families of each split.
        test: (N,) marks images of the source's test split.
        split: (N,) the most closed split of each image's families.
        shared: (N,) marks images of a tuning or private split that several families of this split claim.
        original: (N,) the row of the image of which each one is a copy, for which it leaves; -1 for one that stays.
    """

    images: NDArray[np.uint8]
    families: Mapping[str, Rows]
    chosen: Mapping[int, Sequence[str]]
    test: Mask
    split: Rows
    shared: Mask
    original: Rows

    def rows(self, family: str, among: Mask) -> Rows:
        """Rows of a family among those marked."""
        members = self.families[family]
        return members[among[members]]

    def stays(self, split: int, *, test: bool) -> Mask:
        """(N,) marks the images of one split that stay in it."""
        marks: Mask = (self.split == split) & (self.original < 0) & ~self.shared & (self.test == test)
        return marks


def cut(pool: Pool, spec: DataSpec) -> Collection:
    """Cut a pool into public families and clusters, tuning families and private families.

    An image of several families takes the most closed split among them. Where two tuning families, or two private
    ones, claim it, it belongs to neither. Images of no family are public. Then copies leave the more open split.

    Args:
        pool: The images.
        spec: The user's choices: private and tuning families replace those of the pool, everything else adds to them.

    Raises:
        UserError: An unknown family, too few of them, one that is held out and too small, or no public task at all.
    """
    families = merge_by_name(pool.families.items())
    images = _sorted(pool, families, _choose(pool, families, spec))
    tasks = [*_public_tasks(images, spec)]
    for split in (TUNING, PRIVATE):
        tasks += _held_out_tasks(images, split, pool, spec)
    developed = {*pool.development, *map(family_name, spec.development)}
    used = np.unique(np.concatenate([rows for task in tasks for rows in (task.indices, task.reference)]))
    within, across = _left_out(images)
    return Collection(
        name=pool.name,
        records=pool.images[used],
        tasks=tuple(
            replace(
                task,
                indices=np.searchsorted(used, task.indices),
                reference=np.searchsorted(used, task.reference),
                development=task.family in developed,
            )
            for task in tasks
        ),
        licence=pool.licence,
        show_reference=pool.show_reference or spec.show_reference,
        passed_over=(*pool.passed_over, *within),
        remarks=(*pool.remarks, *across),
    )


def _choose(pool: Pool, families: Mapping[str, Rows], spec: DataSpec) -> dict[int, tuple[str, ...]]:
    """Families of each split. The user's choice comes first, then the source's, then the last families.

    Raises:
        UserError: An unknown family, or none left to be public.
    """
    wanted, held, developed = (
        tuple(map(family_name, names)) for names in (spec.private, spec.tuning, spec.development)
    )
    for family in (*wanted, *held, *developed):
        if family not in families and (family in (*wanted, *held) or family not in pool.elsewhere):
            raise unknown_name("family", family, families)
    known = [family for family in families if family not in held]
    chosen = wanted or tuple(f for f in pool.private if f in known) or tuple(known[-2:])
    rest = [family for family in families if family not in chosen]
    held_out = held or tuple(f for f in pool.tuning if f in rest) or tuple(rest[-1:] if len(rest) > 1 else ())
    if set(families) <= {*chosen, *held_out}:
        raise UserError(
            f"'{pool.name}' has {count_noun(len(families), 'family', 'families')} ({', '.join(families)}), and all are "
            "held out as private or tuning: expected at least one public family, name fewer in data.private and "
            "data.tuning, or add data"
        )
    return {PUBLIC: tuple(families), TUNING: held_out, PRIVATE: chosen}


def _sorted(pool: Pool, families: Mapping[str, Rows], chosen: Mapping[int, Sequence[str]]) -> _Sorted:
    """Sort the images into splits, and find those that must leave their split."""
    images = pool.images
    test = np.zeros(len(images), np.bool_) if pool.test is None else pool.test
    split = np.full(len(images), PUBLIC)
    claims = np.zeros((len(SPLITS), len(images)), np.int64)
    for held_out in (TUNING, PRIVATE):
        for family in chosen[held_out]:
            split[families[family]] = held_out
            claims[held_out, families[family]] += 1
    return _Sorted(
        images=images,
        families=families,
        chosen=chosen,
        test=test,
        split=split,
        shared=claims[split, np.arange(len(images))] > 1,
        original=_originals(images, split, test),
    )


def _originals(images: NDArray[np.uint8], split: Rows, test: Mask) -> Rows:
    """For each image that leaves, the row that it equals or nearly equals; -1 for an image that stays.

    Of equal images the first of the most closed split stays, training images before test images. An image near one of a
    more closed split leaves whether or not that one stays, so that what is public depends on all that is held out.
    """
    unused = (split == PUBLIC) & test  # in no task, so nothing leaves for it
    order = np.lexsort((test, -split))
    first = first_of_equals(images, order[~unused[order]])
    repeated = first != np.arange(len(images))
    original = np.full(len(images), -1)
    for opened, closed in ((TUNING, PRIVATE), (PUBLIC, PRIVATE), (PUBLIC, TUNING)):
        rows = np.flatnonzero((split == opened) & ~repeated & (original < 0) & ~unused)
        others = np.flatnonzero((split == closed) & ~repeated)
        found = nearly_equal(images[rows], images[others])
        original[rows[found >= 0]] = others[found[found >= 0]]
    original[repeated] = np.where(original[first] < 0, first, original[first])[repeated]
    return original


def _public_tasks(images: _Sorted, spec: DataSpec) -> Iterator[Task]:
    """The families and clusters of public images that are large enough."""
    stays = images.stays(PUBLIC, test=False)
    for family in images.families:
        indices = images.rows(family, stays)
        if len(indices) >= spec.min_task_size:
            yield Task(id=family, family=family, split="public", indices=indices)
    public = np.flatnonzero(stays)
    for task_id, members in _clusters(images.images[public], spec.cluster_sizes):
        if len(members) >= spec.min_task_size:
            yield Task(id=task_id, family=task_id, split="public", indices=public[members], kind="cluster")


def _held_out_tasks(images: _Sorted, split: int, pool: Pool, spec: DataSpec) -> Iterator[Task]:
    """The tuning or the private families.

    Raises:
        UserError: One of them is too small.
    """
    for family in images.chosen[split]:
        indices = images.rows(family, images.stays(split, test=False))
        if len(indices) < spec.min_task_size:
            copies = len(images.rows(family, (images.split == split) & (images.original >= 0)))
            beside = f" beside {count_noun(copies, 'copy', 'copies')} of these or of others" if copies else ""
            raise UserError(
                f"{SPLITS[split]} family '{family}' of '{pool.name}' has {count_noun(len(indices), 'image')} of its own"
                f"{beside}, expected at least data.min_task_size = {spec.min_task_size}: choose a larger family or "
                "lower that size"
            )
        yield Task(
            id=family,
            family=family,
            split=SPLITS[split],
            indices=indices,
            reference=images.rows(family, images.stays(split, test=True)),
            distance="far" if family in pool.far else "near",
        )


def _clusters(images: NDArray[np.uint8], sizes: Sequence[int]) -> Iterator[tuple[str, Rows]]:
    """Cluster public images, once for each mean size.

    Args:
        images: (P, H, W, C) the public images.
        sizes: Mean cluster sizes.

    Yields:
        Task id ("cluster64/017") and rows of ``images``.
    """
    if not sizes or not len(images):
        return
    pixels = images.reshape(len(images), -1).astype(np.float32) / 255
    features = PCA(min(32, *pixels.shape), svd_solver="randomized", random_state=0).fit_transform(pixels)
    for size in sizes:
        count = max(1, len(images) // size)
        found = MiniBatchKMeans(count, n_init=1, random_state=0).fit_predict(features)
        for cluster in range(count):
            yield f"cluster{size}/{cluster:03d}", np.flatnonzero(found == cluster)


def _left_out(images: _Sorted) -> tuple[list[str], list[str]]:
    """What was left out within a split, for each kind, and across splits, for each family that has copies elsewhere."""
    leaves = np.flatnonzero(images.original >= 0)
    closed = images.split[images.original[leaves]]
    across = images.split[leaves] != closed
    within = []
    if copies := int(np.count_nonzero(~across)):
        within.append(count_noun(copies, "exact duplicate"))
    for split, kind in enumerate(SPLITS):
        if several := int(np.count_nonzero(images.shared & (images.split == split) & (images.original < 0))):
            within.append(f"{count_noun(several, 'image')} of more than one {kind} family, left out of each")
    families = np.full(len(images.images), "", object)  # the first of an image's families that is of its split
    for split, names in images.chosen.items():
        for family in reversed(names):
            families[images.rows(family, images.split == split)] = family
    groups: dict[tuple[int, int, str], list[int]] = {}
    for row, original in zip(leaves[across], images.original[leaves[across]], strict=True):
        groups.setdefault((-images.split[original], -images.split[row], families[original]), []).append(row)
    lines = []
    for (closed_split, split, family), rows in sorted(groups.items()):
        equal = sum(np.array_equal(images.images[row], images.images[images.original[row]]) for row in rows)
        near = len(rows) - equal
        how = f"{equal} equal and {near} nearly equal" if equal and near else "equal" if equal else "nearly equal"
        these = f"{count_noun(len(rows), 'image')} {_of_families(SPLITS[-split], families[rows].tolist())}"
        lines.append(f"{these}, {how} to images of the {SPLITS[-closed_split]} family '{family}'")
    return within, lines


def _of_families(kind: str, names: Sequence[str]) -> str:
    """The families of some images: "of the public family 'a'", or the three commonest with their numbers."""
    common = Counter(names).most_common()
    if len(common) == 1:
        return f"of the {kind} family '{names[0]}'" if names[0] else "of no family"
    shown = ", ".join(f"'{name}' ({number})" if name else f"none ({number})" for name, number in common[:3])
    rest = f" and {len(common) - 3} more" if len(common) > 3 else ""
    return f"of the {kind} families {shown}{rest}"
