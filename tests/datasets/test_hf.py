"""A folder of the library datasets: its splits, and what would be read as something else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets.hf import HF


def test_the_split_test_is_the_reference_of_held_out_classes(tmp_path: Path, write: Any) -> None:
    collection = HF.load(write["hf"](tmp_path))
    assert [(t.id, len(t), len(t.reference)) for t in collection.tasks if t.split != "public"] == [
        ("n3", 15, 15),
        ("n4", 15, 15),
        ("n5", 15, 15),
    ]


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a selection": (
        lambda root: (root / "train/state.json").write_text(json.dumps({"_indices_data_files": [{"filename": "x"}]})),
        r"holds a selection of rows .* call flatten_indices\(\)",
    ),
    "the cache of a selection": (
        lambda root: (root / "train/data-00000-of-00001.arrow").rename(root / "train/cache-1.arrow"),
        "is the cache of a selection or a map",
    ),
    "a damaged state": (lambda root: (root / "train/state.json").write_text("{"), "cannot read .*state.json"),
    "a file cut short": (lambda root: cut_short(root / "train/data-00000-of-00001.arrow"), "an intact Arrow stream"),
    "no stream": (lambda root: (root / "train/data-00000-of-00001.arrow").write_bytes(b""), "an intact Arrow stream"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str, tmp_path: Path, write: Any) -> None:
    spec = write["hf"](tmp_path)
    spoil, message = BAD[case]
    spoil(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        HF.load(spec)
    assert "\n" not in str(caught.value)


def test_a_folder_without_such_files_is_refused(tmp_path: Path) -> None:
    for source in (f"hf:{tmp_path}", "hf", f"hf:{tmp_path / 'none'}"):
        with pytest.raises(UserError, match="expected hf:PATH with a folder of the library datasets"):
            HF.load(DataSpec(source=source))
