"""Odd files, folders and names: pixels are what a viewer shows, or the refusal names the file."""

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dphyper.bench.catalog import DATASETS
from dphyper.core.errors import UserError
from dphyper.core.names import family_name
from dphyper.core.specs import DataSpec
from dphyper.datasets._cut import PooledSource
from dphyper.datasets._images import decode
from dphyper.datasets.folder import Folder
from dphyper.datasets.npz import Npz
from dphyper.datasets.odd_files import (
    COLOUR,
    ODD_NAMES,
    Entry,
    entry_spec,
    far_from_shown,
    odd_entries,
    odd_files,
    page,
    spec_of,
    write_families,
)

FILES = {case.name: case for case in odd_files()}
ENTRIES = {case.what: case for case in odd_entries()}
SOURCES = ("folder", "parquet", "hf")


def pool_of(spec: DataSpec) -> Any:
    kind = DATASETS[spec.scheme]
    assert issubclass(kind, PooledSource)
    return kind.read(spec)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", FILES)
def test_an_odd_file_is_as_a_viewer_shows_it(
    name: str, source: str, channels: int, tmp_path: Path, one_file: Mapping[str, Callable[..., DataSpec]]
) -> None:
    case = FILES[name]
    spec = replace(spec_of(case, channels), source=one_file[source](tmp_path, case.name, case.content).source)
    if case.shown is None:
        says = case.says if source == "folder" else case.says.replace(f"{case.name} ", ".* ")
        with pytest.raises(UserError, match=says) as caught:
            pool_of(spec)
        assert "\n" not in str(caught.value)
        return
    pool = pool_of(spec)
    assert far_from_shown(case, pool.images[0]) <= case.far
    assert len(pool.remarks) == bool(case.says)
    assert all(case.says in remark for remark in pool.remarks)


def test_every_source_is_tried_or_said_to_decode_nothing(
    one_file: Mapping[str, Callable[..., DataSpec]], decode_nothing: set[str]
) -> None:
    assert set(SOURCES) == set(one_file)
    assert set(DATASETS) == set(one_file) | decode_nothing, "a source that conftest.py does not know"
    assert not set(one_file) & decode_nothing
    assert len(FILES) + len(ENTRIES) >= 70


def test_the_comparison_can_fail() -> None:
    turned = FILES["turn6.png"]
    images, _ = decode([("x", FILES["turn2.png"].content)], spec_of(turned))
    assert np.array_equal(images[0], COLOUR)
    raw, _ = decode([("x", FILES["profile.png"].content)], spec_of(turned))
    assert np.abs(raw[0].astype(int) - COLOUR[..., [1, 0, 2]]).max() > 30  # the profile did something
    assert turned.shown is not None


@pytest.mark.parametrize("what", ENTRIES)
def test_what_lies_in_a_folder_is_counted(what: str, tmp_path: Path) -> None:
    case: Entry = ENTRIES[what]
    write_families(tmp_path)
    plain = Folder.load(entry_spec(tmp_path))
    assert plain.passed_over == plain.remarks == ()
    case.make(tmp_path)
    collection = Folder.load(entry_spec(tmp_path))
    assert (*collection.passed_over, *collection.remarks) == (case.says,)
    assert np.array_equal(collection.records, plain.records)
    assert collection.account[-1].startswith(f"{tmp_path.name}: 6 records in 2 families")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_of_a_folder_is_a_family(name: str, tmp_path: Path) -> None:
    write_families(tmp_path / "x", (name, "plain"))
    spec = DataSpec(source=f"folder:{tmp_path / 'x'}", min_task_size=1, cluster_sizes=())
    part = {"source": spec.source, "families": [name]}  # also where it looks like a source
    for private in ((part,),) if name == "folder:x" else ((name,), (part,)):
        collection = DATASETS[(chosen := replace(spec, private=private)).scheme].load(chosen)
        assert {task.id: task.split for task in collection.tasks} == {family_name(name): "private", "plain": "public"}
        assert collection.task(name).split == "private"
    np.savez(tmp_path / f"{name}.npz", x=np.stack([COLOUR, 255 - COLOUR, COLOUR[::-1]]), y=[name, "plain", "more"])
    found = Npz.load(replace(spec, source=f"npz:{tmp_path / name}.npz", private=(), tuning=()))
    assert {task.id for task in found.tasks} == {family_name(name), "plain", "more"}


def test_a_folder_without_sub_folders_is_one_family(tmp_path: Path) -> None:
    write_families(tmp_path, ("photos",))
    pool = Folder.read(DataSpec(source=f"folder:{tmp_path / 'photos'}"))
    assert {name: len(rows) for name, rows in pool.families.items()} == {"photos": 3}


def test_all_unreadable_images_are_counted(tmp_path: Path) -> None:
    write_families(tmp_path, each=9)
    for number in range(7):
        (tmp_path / "a" / f"{number}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot read 7 of 18 images: .*0.png \(empty\), .* and 2 more: expected"):
        Folder.load(entry_spec(tmp_path))


def test_dim_images_beside_bright_ones_are_named() -> None:
    files = [(name, FILES[name].content) for name in ("16.png", "12_in_16.png", "36.png")]
    _, remarks = decode(files, spec_of(FILES["16.png"]))
    assert remarks == (
        "3 images of 16 bits: 0 is taken as black, 65535 as white; 2 come out almost black (12_in_16.png, 36.png)",
    )


def test_no_scale_is_taken_from_the_data() -> None:
    """Images of half the values are half as bright: a maximum would have made them equal, and told of the brightest."""
    spec = spec_of(FILES["16.png"])
    (full, half), _ = decode([("x", FILES["16.png"].content), ("y", half_as_bright())], spec)
    assert np.abs(half.astype(int) - full / 2).max() <= 1


def half_as_bright() -> bytes:
    deep = COLOUR[..., 0].astype(np.uint16) * 257 // 2
    buffer = io.BytesIO()
    Image.fromarray(deep).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_page_is_what_is_done_now() -> None:
    written = Path(__file__).parents[2] / "docs" / "odd_files.md"
    assert written.read_text() == f"{page()}\n", "python -m dphyper.datasets.odd_files > docs/odd_files.md"
