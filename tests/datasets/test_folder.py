"""A folder of images: one family for each sub-folder, and what is passed over is counted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets.folder import Folder


@pytest.mark.parametrize("hidden", [".thumbnails", ".ipynb_checkpoints", "__MACOSX", "@eaDir"])
def test_hidden_folders_are_no_families(hidden: str, tmp_path: Path, three: Any) -> None:
    tiny = np.stack([np.asarray(Image.fromarray(image).resize((8, 8))) for image in three.patients])
    spec = three.folder(tmp_path / ".data", {**three.families, hidden: tiny, f"patients/{hidden}": tiny})
    for junk in ("holiday/._000.png", "holiday/notes.txt", "over.png", ".over.png"):
        (tmp_path / ".data" / junk).write_bytes(b"junk")
    (tmp_path / ".data" / "patients" / "older").mkdir()
    collection = Folder.load(spec)
    assert {task.id for task in collection.tasks if task.kind == "family"} == three.families.keys()
    assert collection.passed_over == (
        "2 hidden folders and 1 hidden file",
        "1 file that is no image (.txt)",
        "1 folder inside a family's folder",
        "1 image outside any family's folder",
    )
    (tmp_path / ".data" / hidden).rename(tmp_path / ".data" / "shown")
    assert any("of the public family 'shown'" in line for line in Folder.load(spec).remarks)


def corrupt_image(root: Path, write: Any) -> DataSpec:
    spec: DataSpec = write["folder"](root)
    file = root / "1" / "000.png"
    file.write_bytes(file.read_bytes()[:50])
    return spec


BAD: dict[str, tuple[Callable[..., DataSpec], str]] = {
    "missing": (lambda root, write: DataSpec(source=f"folder:{root / 'none'}"), "a folder that exists"),
    "without argument": (lambda root, write: DataSpec(source="folder"), "expected folder:PATH"),
    "empty": (lambda root, write: DataSpec(source=f"folder:{root}"), "holds no image"),
    "a corrupt image": (corrupt_image, r"cannot read the image .*1.000\.png"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str, tmp_path: Path, write: Any) -> None:
    make, message = BAD[case]
    with pytest.raises(UserError, match=message) as caught:
        Folder.load(make(tmp_path, write))
    assert "\n" not in str(caught.value)
