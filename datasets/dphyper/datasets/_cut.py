"""Cuts one pool of images, sorted into families, into a collection of public, tuning and private tasks.

The order from open to closed is public, tuning, private. Guarantees: no image of a more closed split has a copy in a
more open one, as far as `nearly_equal` finds copies. The copy leaves the more open split, also as a member of a cluster
and as a reference; a private image is never dropped for a public copy. Only public images enter the clustering. Two
loads on one machine give equal tasks.

What is public therefore depends on private images, through the public images that leave. The differential privacy
guarantee does not cover this: an attacker who knows the public pool from elsewhere may learn from the public set, or
from what was trained on it, that a private image has a copy there. The alternative is worse, because a model trained
on the copy voids the guarantee for that record. Which images leave depends on the whole of every family held out, the
reference included, and never on the seed that draws private records. `Collection.passed_over` counts them, and so
tells of private records: do not publish it.

Not guaranteed: copies that `nearly_equal` does not find. Clusters may differ in a few images between machines whose
linear algebra rounds differently.

Shapes: N images of the pool, P public images, H W C height, width, channels.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA

from dphyper.bench.tasks import Collection, Split, Task
from dphyper.core.errors import UserError, unknown_name
from dphyper.core.specs import DataSpec
from dphyper.datasets._duplicates import first_of_equals, nearly_equal
from dphyper.datasets._families import count_noun, family_name, merge_by_name

# From open to closed. An image takes the most closed split of its families; of equal images the most closed one stays.
SPLITS: tuple[Split, ...] = ("public", "tuning", "private")
PUBLIC, TUNING, PRIVATE = range(3)

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pool:
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


def cut(
    *,
    name: str,
    images: NDArray[np.uint8],
    families: Mapping[str, Rows],
    spec: DataSpec,
    private: Sequence[str] = (),
    tuning: Sequence[str] = (),
    far: Sequence[str] = (),
    development: Sequence[str] = (),
    test: Mask | None = None,
    licence: str,
    show_reference: bool = False,
    passed_over: Sequence[str] = (),
) -> Collection:
    """Cut a pool into public families and clusters, tuning families and private families.

    An image of several families takes the most closed split among them. Where two tuning families, or two private
    ones, claim it, it belongs to neither. Images of no family are public. Then copies leave the more open split.

    Args:
        name: The collection's name, for reports.
        images: (N, H, W, C) the pool.
        families: Rows of each family; families may overlap.
        spec: The user's choices: private and tuning families replace the arguments, everything else adds to them.
        private: The source's own choice of private families; the last two, if ``families`` has none of them.
        tuning: The same for tuning families; the last one that is not private, if there is none of them.
        far: Families whose distance from the public ones is called "far".
        development: Families on which a decision of the design was based, as far as they are in ``families``.
        test: (N,) marks the source's test split: references of tuning and private families, and nothing else.
        licence: Licence and source, one line.
        show_reference: Whether the source says that its images may be shown.
        passed_over: What the source itself has left out, one line for each kind.

    Raises:
        UserError: An unknown family, too few of them, one that is held out and too small, or no public task at all.
    """
    families = merge_by_name(families.items())
    pool = _pool(images, families, _choose(name, families, spec, private, tuning), test)
    tasks = [*_public_tasks(pool, spec)]
    for split in (TUNING, PRIVATE):
        tasks += _held_out_tasks(pool, split, name, spec, far)
    developed = {*development, *map(family_name, spec.development)}
    used = np.unique(np.concatenate([rows for task in tasks for rows in (task.indices, task.reference)]))
    return Collection(
        name=name,
        records=images[used],
        tasks=tuple(
            replace(
                task,
                indices=np.searchsorted(used, task.indices),
                reference=np.searchsorted(used, task.reference),
                development=task.family in developed,
            )
            for task in tasks
        ),
        licence=licence,
        show_reference=show_reference or spec.show_reference,
        passed_over=(*passed_over, *_left_out(pool)),
    )


def _choose(
    name: str, families: Mapping[str, Rows], spec: DataSpec, private: Sequence[str], tuning: Sequence[str]
) -> dict[int, tuple[str, ...]]:
    """Families of each split. The user's choice comes first, then the source's, then the last families.

    Raises:
        UserError: An unknown family, or none left to be public.
    """
    wanted, held, developed = (
        tuple(map(family_name, names)) for names in (spec.private, spec.tuning, spec.development)
    )
    for family in (*wanted, *held, *developed):
        if family not in families:
            raise unknown_name("family", family, families)
    known = [family for family in families if family not in held]
    chosen = wanted or tuple(f for f in private if f in known) or tuple(known[-2:])
    rest = [family for family in families if family not in chosen]
    held_out = held or tuple(f for f in tuning if f in rest) or tuple(rest[-1:] if len(rest) > 1 else ())
    if set(families) <= {*chosen, *held_out}:
        raise UserError(
            f"'{name}' has {len(families)} families ({', '.join(families)}) and all of them are held out as private or "
            "tuning: expected at least one public family, name fewer in data.private and data.tuning or add data"
        )
    return {PUBLIC: tuple(families), TUNING: held_out, PRIVATE: chosen}


def _pool(
    images: NDArray[np.uint8], families: Mapping[str, Rows], chosen: Mapping[int, Sequence[str]], test: Mask | None
) -> _Pool:
    """Sort the images into splits, and find those that must leave their split."""
    test = np.zeros(len(images), np.bool_) if test is None else test
    split = np.full(len(images), PUBLIC)
    claims = np.zeros((len(SPLITS), len(images)), np.int64)
    for held_out in (TUNING, PRIVATE):
        for family in chosen[held_out]:
            split[families[family]] = held_out
            claims[held_out, families[family]] += 1
    return _Pool(
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


def _public_tasks(pool: _Pool, spec: DataSpec) -> Iterator[Task]:
    """The families and clusters of public images that are large enough."""
    stays = pool.stays(PUBLIC, test=False)
    for family in pool.families:
        indices = pool.rows(family, stays)
        if len(indices) >= spec.min_task_size:
            yield Task(id=family, family=family, split="public", indices=indices)
    public = np.flatnonzero(stays)
    for task_id, members in _clusters(pool.images[public], spec.cluster_sizes):
        if len(members) >= spec.min_task_size:
            yield Task(id=task_id, family=task_id, split="public", indices=public[members], kind="cluster")


def _held_out_tasks(pool: _Pool, split: int, name: str, spec: DataSpec, far: Sequence[str]) -> Iterator[Task]:
    """The tuning or the private families.

    Raises:
        UserError: One of them is too small.
    """
    for family in pool.chosen[split]:
        indices = pool.rows(family, pool.stays(split, test=False))
        if len(indices) < spec.min_task_size:
            copies = len(pool.rows(family, (pool.split == split) & (pool.original >= 0)))
            raise UserError(
                f"{SPLITS[split]} family '{family}' of '{name}' has {len(indices)} images of its own"
                f"{f' beside {copies} copies of others' if copies else ''}, expected at least data.min_task_size = "
                f"{spec.min_task_size}: choose a larger family or lower that size"
            )
        yield Task(
            id=family,
            family=family,
            split=SPLITS[split],
            indices=indices,
            reference=pool.rows(family, pool.stays(split, test=True)),
            distance="far" if family in far else "near",
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


def _left_out(pool: _Pool) -> Iterator[str]:
    """What was left out: a line for each kind, and one for each held-out family with copies in a more open split."""
    leaves = np.flatnonzero(pool.original >= 0)
    closed = pool.split[pool.original[leaves]]
    across = pool.split[leaves] != closed
    if within := int(np.count_nonzero(~across)):
        yield count_noun(within, "exact duplicate")
    for split, kind in enumerate(SPLITS):
        if several := int(np.count_nonzero(pool.shared & (pool.split == split) & (pool.original < 0))):
            yield f"{count_noun(several, 'image')} of more than one {kind} family, left out of each"
    families = np.full(len(pool.images), "", object)  # the first of an image's families that is of its split
    for split, names in pool.chosen.items():
        for family in reversed(names):
            families[pool.rows(family, pool.split == split)] = family
    groups: dict[tuple[int, int, str], list[int]] = {}
    for row, original in zip(leaves[across], pool.original[leaves[across]], strict=True):
        groups.setdefault((-pool.split[original], -pool.split[row], families[original]), []).append(row)
    for (closed_split, split, family), rows in sorted(groups.items()):
        equal = sum(np.array_equal(pool.images[row], pool.images[pool.original[row]]) for row in rows)
        near = len(rows) - equal
        how = f"{equal} equal and {near} nearly equal" if equal and near else "equal" if equal else "nearly equal"
        these = f"{count_noun(len(rows), 'image')} {_of_families(SPLITS[-split], families[rows].tolist())}"
        yield f"{these}, {how} to images of the {SPLITS[-closed_split]} family '{family}'"


def _of_families(kind: str, names: Sequence[str]) -> str:
    """The families of some images: "of the public family 'a'", or the three commonest with their numbers."""
    common = Counter(names).most_common()
    if len(common) == 1:
        return f"of the {kind} family '{names[0]}'" if names[0] else "of no family"
    shown = ", ".join(f"'{name}' ({number})" if name else f"none ({number})" for name, number in common[:3])
    rest = f" and {len(common) - 3} more" if len(common) > 3 else ""
    return f"of the {kind} families {shown}{rest}"
