"""Cuts one pool of images, sorted into families, into a collection of public, tuning and private tasks.

Guarantees: two splits share no image, by row or by content; only public images enter the clustering, and what
is public never depends on the pixels of a tuning or private image, so a private image that is also public
leaves the private side. Two loads on one machine give equal tasks. Not guaranteed: near duplicates under
different family names are the source's business, and clusters may differ in a few images between machines whose
linear algebra rounds differently.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA

from dphyper.bench.errors import UserError, unknown_name
from dphyper.bench.specs import DataSpec
from dphyper.bench.tasks import Collection, Split, Task

# From open to closed: a row takes the most closed split of its families; of two equal images the more open stays.
SPLITS: tuple[Split, ...] = ("public", "tuning", "private")
PUBLIC, TUNING, PRIVATE = range(3)


def by_label(labels: NDArray[np.integer], names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Rows of each class, in the order of ``names``.

    Args:
        labels: (N,) index into ``names`` of each image.
        names: Name of each class.
    """
    return {name: np.flatnonzero(labels == i) for i, name in enumerate(names)}


def cut(
    *,
    name: str,
    images: NDArray[np.uint8],
    families: Mapping[str, NDArray[np.int64]],
    spec: DataSpec,
    private: Sequence[str] = (),
    tuning: Sequence[str] = (),
    far: Sequence[str] = (),
    test: NDArray[np.bool_] | None = None,
    licence: str,
) -> Collection:
    """Cut a pool into public families and clusters, tuning families and private families.

    An image of several families takes the most closed split among them (private before tuning before public);
    where two families of that split claim it, it belongs to neither, so that no two of them overlap. Images of
    no family are public and enter the clusters.

    Args:
        name: Name of the collection, for reports.
        images: (N, H, W, C) the pool.
        families: Rows of each family; families may overlap.
        spec: The cut; its ``private`` and ``tuning`` win over the arguments of that name.
        private: The source's own choice of private families, as far as they are there; none for the last two.
        tuning: Likewise of tuning families; none for the last one that is not private.
        far: Families whose way to the public ones is called "far".
        test: (N,) marks images of the source's test split: references of tuning and private families, never
            private records and never public.
        licence: Licence and source, one line.

    Raises:
        UserError: An unknown family, too few families, a tuning or private family that is too small, or no
            public task at all.
    """
    private, tuning = _choose(name, families, spec, private, tuning)
    test = np.zeros(len(images), np.bool_) if test is None else test
    owner = np.full(len(images), PUBLIC)
    claims = np.zeros((len(SPLITS), len(images)), np.int64)
    for split, chosen in ((TUNING, tuning), (PRIVATE, private)):
        for family in chosen:
            owner[families[family]] = split
            claims[split, families[family]] += 1
    keep = _first_of_equals(images, owner, test) & (claims[owner, np.arange(len(images))] <= 1)

    def rows(family: str, split: int, among: NDArray[np.bool_]) -> NDArray[np.int64]:
        mine = np.zeros(len(images), np.bool_)
        mine[families[family]] = True
        return np.flatnonzero(mine & keep & among & (owner == split))

    tasks = [
        Task(id=family, family=family, split="public", indices=indices)
        for family in families
        if len(indices := rows(family, PUBLIC, ~test)) >= spec.min_task_size
    ]
    public = np.flatnonzero(keep & (owner == PUBLIC) & ~test)
    for task_id, members in _clusters(images[public], spec.cluster_sizes):
        if len(members) >= spec.min_task_size:
            tasks.append(Task(id=task_id, family=task_id, split="public", indices=public[members], kind="cluster"))
    for split, chosen in ((TUNING, tuning), (PRIVATE, private)):
        for family in chosen:
            indices = rows(family, split, ~test)
            if len(indices) < spec.min_task_size:
                raise UserError(
                    f"{SPLITS[split]} family '{family}' of '{name}' has {len(indices)} images of its own, expected at "
                    f"least data.min_task_size = {spec.min_task_size}: choose a larger family or lower that size"
                )
            tasks.append(
                Task(
                    id=family,
                    family=family,
                    split=SPLITS[split],
                    indices=indices,
                    reference=rows(family, split, test),
                    distance="far" if family in far else "near",
                )
            )
    return _compact(name, images, tasks, licence)


def _choose(
    name: str,
    families: Mapping[str, NDArray[np.int64]],
    spec: DataSpec,
    private: Sequence[str],
    tuning: Sequence[str],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The private and the tuning families: the user's, else the source's, else the last ones.

    Raises:
        UserError: An unknown family, or none left to be public.
    """
    for family in (*spec.private, *spec.tuning):
        if family not in families:
            raise unknown_name("family", family, families)
    known = [family for family in families if family not in spec.tuning]
    chosen = spec.private or tuple(f for f in private if f in known) or tuple(known[-2:])
    rest = [family for family in families if family not in chosen]
    held_out = spec.tuning or tuple(f for f in tuning if f in rest) or tuple(rest[-1:] if len(rest) > 1 else ())
    if set(families) <= {*chosen, *held_out}:
        raise UserError(
            f"'{name}' has {len(families)} families ({', '.join(families)}) and all of them are held out as private or "
            "tuning: expected at least one public family, name fewer in data.private and data.tuning or add data"
        )
    return chosen, held_out


def _first_of_equals(images: NDArray[np.uint8], owner: NDArray[np.int64], test: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) marks the first of byte-identical images, public before tuning before private, train before test."""
    keep = np.zeros(len(images), np.bool_)
    seen: set[bytes] = set()
    for row in np.lexsort((test, owner)):
        if owner[row] == PUBLIC and test[row]:  # used nowhere, so it may push out nothing
            continue
        digest = hashlib.blake2b(images[row].tobytes(), digest_size=16).digest()
        keep[row] = digest not in seen
        seen.add(digest)
    return keep


def _clusters(images: NDArray[np.uint8], sizes: Sequence[int]) -> Iterator[tuple[str, NDArray[np.int64]]]:
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


def _compact(name: str, images: NDArray[np.uint8], tasks: Sequence[Task], licence: str) -> Collection:
    """Build the collection with the rows that some task uses, and no other."""
    used = np.unique(np.concatenate([rows for task in tasks for rows in (task.indices, task.reference)]))
    return Collection(
        name=name,
        records=images[used],
        tasks=tuple(
            dataclasses.replace(
                task,
                indices=np.searchsorted(used, task.indices),
                reference=np.searchsorted(used, task.reference),
            )
            for task in tasks
        ),
        licence=licence,
    )
