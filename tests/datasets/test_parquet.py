"""Parquet files: test images, rows without a label, hidden files, and what is refused."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets.parquet import Parquet

IMAGES = np.random.default_rng(0).integers(0, 256, (180, 8, 8), np.uint8)
LABELS = np.repeat(np.arange(6), 30)


Images = NDArray[np.uint8]


def small(source: str, **changes: Any) -> DataSpec:
    return DataSpec(**{"source": source, "image_size": 8, "cluster_sizes": (10,), "min_task_size": 5, **changes})


def png(image: Images) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_test_images_are_references_of_held_out_classes_only(tmp_path: Path, write: Any) -> None:
    collection = Parquet.load(write["parquet"](tmp_path))
    assert [(t.id, len(t), len(t.reference)) for t in collection.tasks if t.split != "public"] == [
        ("n3", 15, 15),
        ("n4", 15, 15),
        ("n5", 15, 15),
    ]
    assert len(np.unique(np.concatenate([t.indices for t in collection.select("public")]))) == 3 * 15


def write_splits(root: Path, three: Any, train: Mapping[str, Images], test: Mapping[str, Images]) -> DataSpec:
    for name, families in (("train", train), ("test", test)):
        cells, labels = [], []
        for family, images in families.items():
            for image in images:
                cells.append({"bytes": png(image), "path": None})
                labels.append(family)
        pq.write_table(pa.table({"img": cells, "label": labels}), root / f"{name}.parquet")
    spec: DataSpec = three.spec(f"parquet:{root}")
    return spec


def test_copies_of_and_among_test_images_leave(tmp_path: Path, three: Any) -> None:
    more = three.pictures(5)
    train = {**three.families, "holiday": np.concatenate([three.holiday, more[:3] + 1, more[20:22]])}
    test = {
        "holiday": three.patients[:7],  # used nowhere
        "phantoms": np.concatenate([more[20:30], three.patients[:4] + 1]),
        "patients": np.concatenate([more[:10], three.patients[:5]]),
    }
    collection = Parquet.load(write_splits(tmp_path, three, train, test))
    held_out = {task.id: (len(task), len(task.reference)) for task in collection.tasks if task.split != "public"}
    assert held_out == {"phantoms": (40, 10), "patients": (40, 10)}
    assert len(np.unique(np.concatenate([task.indices for task in collection.select("public")]))) == 40
    assert collection.passed_over == ("5 exact duplicates",)
    assert collection.remarks == (
        "4 images of the tuning family 'phantoms', nearly equal to images of the private family 'patients'",
        "3 images of the public family 'holiday', nearly equal to images of the private family 'patients'",
        "2 images of the public family 'holiday', equal to images of the tuning family 'phantoms'",
    )


def test_hidden_parquet_files_and_rows_without_a_label_are_counted(tmp_path: Path, three: Any) -> None:
    spec = write_splits(tmp_path, three, three.families, {"patients": three.pictures(8, 1)})
    (tmp_path / "._train.parquet").write_bytes(b"junk")
    table = pq.read_table(tmp_path / "train.parquet").slice(0, 2)
    pq.write_table(table.set_column(1, "label", pa.array([None, "holiday"])), tmp_path / "more.parquet")
    collection = Parquet.load(spec)
    assert collection.passed_over == ("1 hidden file", "1 row without a label", "1 exact duplicate")


def test_a_folder_called_test_is_the_test_split_and_the_column_image_is_taken(tmp_path: Path, three: Any) -> None:
    """The layout of the hub's own conversion: train/0000.parquet and test/0000.parquet; masks beside images."""
    for name, families in (("train", three.families), ("test", {"patients": three.pictures(8)})):
        images = [{"bytes": png(image), "path": None} for part in families.values() for image in part]
        labels = [family for family, part in families.items() for _ in part]
        (tmp_path / name).mkdir()
        masks = [PNG] * len(images)
        pq.write_table(pa.table({"mask": masks, "image": images, "label": labels}), tmp_path / name / "0000.parquet")
    collection = Parquet.load(three.spec(f"parquet:{tmp_path}"))
    assert (len(collection.task("patients")), len(collection.task("patients").reference)) == (40, 40)
    assert collection.passed_over == ()  # of masks all but one would be duplicates


PNG = {"bytes": png(IMAGES[0]), "path": None}


def bad_file(name: str, content: bytes) -> Callable[[Path, Any], DataSpec]:
    def write(root: Path, _: Any) -> DataSpec:
        (root / name).write_bytes(content)
        return small(f"{Path(name).suffix[1:]}:{root / name}")

    return write


def bad_parquet(**columns: list[Any]) -> Callable[[Path, Any], DataSpec]:
    def write(root: Path, _: Any) -> DataSpec:
        pq.write_table(pa.table(columns), root / "train.parquet")
        return small(f"parquet:{root}")

    return write


def relabel(root: Path, label: int) -> None:
    path = root / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "label", pa.array([label] * len(table))), path)


def describe(root: Path, description: bytes) -> None:
    path = root / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"huggingface": description}), path)


BAD: dict[str, tuple[Callable[..., DataSpec], str]] = {
    "missing": (lambda root, write: small(f"parquet:{root / 'none'}"), r"a \.parquet file or a folder"),
    "corrupt": (bad_file("a.parquet", b"PAR1"), "expected an intact parquet file"),
    "without image": (bad_parquet(text=["a"], label=[0]), "columns text, label: expected an image column"),
    "without label": (bad_parquet(img=[PNG], kind=[0]), "columns img, kind: expected a column 'label'"),
    "with links": (bad_parquet(img=[{**PNG, "bytes": None}, PNG], label=[0, 0]), "row 0 of .* no image bytes"),
    "with a label without name": (
        lambda root, write: (write["parquet"](root), relabel(root, -2))[0],
        "row 0 of .* has the label -2: expected 0 to 5",
    ),
    "with a label above all names": (
        lambda root, write: (write["parquet"](root), relabel(root, 6))[0],
        "row 0 of .* has the label 6: expected 0 to 5",
    ),
    "with a fraction as label": (
        bad_parquet(img=[PNG], label=[0.5]),
        "row 0 of .* has the label 0.5: expected a whole",
    ),
    "with lists as labels": (bad_parquet(img=[PNG], label=[[1]]), r"row 0 of .* has the label \[1\]: expected a whole"),
    "with two image columns": (
        bad_parquet(mask=[PNG], photo=[PNG], label=[0]),
        "images may be mask or photo; expected one, or one called 'image': rename it",
    ),
    "with metadata that is no JSON": (
        lambda root, write: (write["parquet"](root), describe(root, b"no JSON"))[0],
        "metadata under 'huggingface' that is no description of columns",
    ),
    "with metadata of another kind": (
        lambda root, write: (write["parquet"](root), describe(root, b"[1]"))[0],
        "metadata under 'huggingface' that is no description of columns",
    ),
    "unlabelled": (bad_parquet(img=[PNG], label=[-1]), "no labelled image"),
    "with a corrupt image": (
        bad_parquet(img=[PNG, {"bytes": b"x", "path": None}], label=[0, 1]),
        "cannot read the image in row 1 of",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str, tmp_path: Path, write: Any) -> None:
    make, message = BAD[case]
    with pytest.raises(UserError, match=message) as caught:
        Parquet.load(make(tmp_path, write))
    assert "\n" not in str(caught.value)
