"""Several sources in one collection: lists in ``data.public``, ``data.tuning`` and ``data.private``.

What is private may lie in one folder, and what is public come from elsewhere. Each source is read once, at the size and
channels of the collection; a source that is named in several lists gives each list its own families. Families keep
their names, and are called ``SOURCE.NAME`` where two sources have one of the same name. Families of held-out sources
that are not public ones too count as far.

Guarantees that nothing of a source is public unless ``data.public`` names it, or ``data.source`` where that list is
empty: what is selected from a private source leaves the rest of it unused. Copies across sources leave the more open
split, as within one (`_cut.py`). The splits that a source of an outside package makes by itself count for nothing, but
what it has left out is not there.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from dphyper.bench.catalog import DATASETS
from dphyper.bench.source import Source
from dphyper.bench.tasks import Collection
from dphyper.core.errors import UserError, unknown_name
from dphyper.core.names import Part, family_name
from dphyper.core.specs import DataSpec, is_source
from dphyper.datasets._cut import Pool, PooledSource, cut
from dphyper.datasets._families import merge_by_name


class Mixed(Source):
    """Several sources: lists in data.public, data.tuning and data.private; never named itself."""

    @classmethod
    def load(cls, spec: DataSpec) -> Collection:
        """Read every source once, and cut all of them together.

        Raises:
            UserError: A source cannot be read or lacks a family that is named, one family is of two splits, or two
                sources cannot be told apart.
        """
        public = [_part(entry) for entry in spec.public or (spec.source,)]
        held_out = {
            split: [_part(entry) for entry in entries if is_source(entry)]
            for split, entries in (("private", spec.private), ("tuning", spec.tuning))
        }
        parts = [*held_out["private"], *held_out["tuning"], *public]
        if any(_scheme(part.source) == "mixed" for part in parts):
            raise UserError("data.source 'mixed' has no images of its own: name the sources in data.public")
        shares = {
            source: _share(source, spec, public, held_out) for source in dict.fromkeys(part.source for part in parts)
        }
        names = _names({source: share.pool for source, share in shares.items()})
        pools = [share.pool for share in shares.values()]
        starts = np.cumsum([0, *(len(pool.images) for pool in pools)])

        def named(source: str, families: Sequence[str]) -> list[str]:
            return [names[source, family] for family in families if (source, family) in names]

        def chosen(split: str, entries: Sequence[str | Part]) -> tuple[str, ...]:
            own = (name for source, share in shares.items() for name in named(source, share.chosen[split]))
            return tuple(dict.fromkeys((*(str(entry) for entry in entries if not is_source(entry)), *own)))

        def defaults(attribute: str) -> list[str]:
            """What the public sources choose by themselves."""
            return [
                name
                for source in dict.fromkeys(part.source for part in public)
                for name in named(source, getattr(shares[source].pool, attribute))
            ]

        several = len(pools) > 1
        closed = [share for share in shares.values() if any(share.chosen.values())] or [*shares.values()]
        pool = Pool(
            name="+".join(dict.fromkeys(pool.name for pool in pools)),
            images=np.concatenate([pool.images for pool in pools]),
            families={
                names[source, family]: rows + start
                for (source, share), start in zip(shares.items(), starts, strict=False)
                for family, rows in share.pool.families.items()
            },
            private=defaults("private"),
            tuning=defaults("tuning"),
            far=[
                *(name for source, share in shares.items() for name in named(source, share.pool.far)),
                *(
                    name
                    for source, share in shares.items()
                    if not any(part.source == source for part in public)
                    for name in named(source, [*share.pool.families])
                ),
            ],
            development=[n for source, share in shares.items() for n in named(source, share.pool.development)],
            elsewhere=[name for pool in pools for name in pool.elsewhere],
            test=np.concatenate(
                [np.zeros(len(pool.images), np.bool_) if pool.test is None else pool.test for pool in pools]
            ),
            licence="; ".join(dict.fromkeys(pool.licence for pool in pools)),
            show_reference=all(share.pool.show_reference for share in closed),
            passed_over=[f"{line} of '{p.name}'" if several else line for p in pools for line in p.passed_over],
            remarks=[f"{p.name}: {line}" if several else line for p in pools for line in p.remarks],
        )
        private, tuning = chosen("private", spec.private), chosen("tuning", spec.tuning)
        return cut(pool, dataclasses.replace(spec, public=(), private=private, tuning=tuning))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Share:
    """What is taken of a source.

    Attributes:
        pool: Its images that are of a split, or of a public source's no family, and its families.
        chosen: Its families that ``private`` and ``tuning`` name as a source's.
    """

    pool: Pool
    chosen: Mapping[str, Sequence[str]]


def _scheme(source: str) -> str:
    return source.partition(":")[0]


def _part(entry: str | Part) -> Part:
    return entry if isinstance(entry, Part) else Part(source=entry)


def _share(source: str, spec: DataSpec, public: Sequence[Part], held_out: Mapping[str, Sequence[Part]]) -> _Share:
    """Read one source, and keep what the lists take of it.

    Raises:
        UserError: It cannot be read, lacks a family, or gives one to two splits.
    """
    closed = {split: [part for part in parts if part.source == source] for split, parts in held_out.items()}
    opened = [part for part in public if part.source == source]
    asked = tuple(dict.fromkeys(f for part in (*opened, *closed["private"], *closed["tuning"]) for f in part.families))
    pool = _read(dataclasses.replace(spec, source=source, public=(), private=asked, tuning=(), development=()))
    for family in asked:
        if family not in pool.families:
            raise unknown_name(f"family of '{source}'", family, pool.families)
    chosen = {
        split: tuple(dict.fromkeys(f for part in parts for f in part.families or pool.families))
        for split, parts in closed.items()
    }
    both = set(chosen["private"]) & set(chosen["tuning"])
    if both:
        raise UserError(
            f"family '{min(both)}' of '{source}' is taken both by data.private and by data.tuning: keep it in one of "
            "them"
        )
    whole = any(not part.families for part in opened)
    taken = {*chosen["private"], *chosen["tuning"], *(family for part in opened for family in part.families)}
    families = {family: rows for family, rows in pool.families.items() if whole or family in taken}
    kept = np.arange(len(pool.images)) if whole else np.unique(np.concatenate([*families.values()]))
    return _Share(
        chosen=chosen,
        pool=dataclasses.replace(
            pool,
            images=pool.images[kept],
            families={family: np.searchsorted(kept, rows[np.isin(rows, kept)]) for family, rows in families.items()},
            test=None if pool.test is None else pool.test[kept],
        ),
    )


def _read(spec: DataSpec) -> Pool:
    """All images of one source.

    Raises:
        UserError: It cannot be read, or has no images.
    """
    kind = DATASETS[_scheme(spec.source)]  # `spec.scheme` would take a family called folder:x for a source
    if issubclass(kind, PooledSource):
        pool = kind.read(spec)
        return dataclasses.replace(pool, families=merge_by_name(pool.families.items()))
    found = kind.load(dataclasses.replace(spec, private=(), cluster_sizes=(), min_task_size=1))
    if found.records.dtype != np.uint8 or found.records.shape[1:] != (spec.image_size, spec.image_size, spec.channels):
        raise UserError(
            f"data.source '{spec.source}' has records of {found.records.dtype} and shape {found.records.shape[1:]}: "
            f"expected uint8 images of {spec.image_size} × {spec.image_size} × {spec.channels} beside other sources"
        )
    tasks = [task for task in found.tasks if task.kind == "family"]
    test = np.zeros(len(found.records), np.bool_)
    for task in tasks:
        test[task.reference] = True
    return Pool(
        name=found.name,
        images=found.records.astype(np.uint8, copy=False),
        families=merge_by_name((task.family, np.concatenate([task.indices, task.reference])) for task in tasks),
        private=[task.family for task in tasks if task.split == "private"],
        tuning=[task.family for task in tasks if task.split == "tuning"],
        far=[task.family for task in tasks if task.distance == "far"],
        development=[task.family for task in tasks if task.development],
        test=test,
        licence=found.licence,
        show_reference=found.show_reference,
        passed_over=found.passed_over,
        remarks=found.remarks,
    )


def _names(pools: Mapping[str, Pool]) -> dict[tuple[str, str], str]:
    """The name of each family in the collection, by source and its name there.

    Raises:
        UserError: Two sources of one name have families of one name.
    """
    common = Counter(family for pool in pools.values() for family in pool.families)
    found = {
        (source, family): family if common[family] == 1 else family_name(f"{pool.name}.{family}")
        for source, pool in pools.items()
        for family in pool.families
    }
    for name, number in Counter(found.values()).items():
        if number > 1:
            sources = [source for (source, _), own in found.items() if own == name]
            raise UserError(
                f"'{sources[0]}' and '{sources[1]}' both have a family that would be called '{name}': rename one "
                "of the two files or folders, or take the family from one of them alone"
            )
    return found
