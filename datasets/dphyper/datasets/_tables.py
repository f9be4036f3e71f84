"""Tables of images in Hugging Face's layout, whatever kind of file holds them.

The image column holds {bytes, path} structs and the label column integers. Names of the labels stand in the schema's
metadata under ``huggingface`` (ClassLabel). Without that metadata the column ``image`` or ``img`` is taken, or the only
struct column with ``bytes``, and the column ``label``.

Guarantees that no library of the hub is needed. Images that are only linked by path are refused. Rows without a label
are passed over and counted.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets._cut import Pool
from dphyper.datasets._families import by_label, count_noun
from dphyper.datasets._images import decode

_IMAGES, _LABELS = ("image", "img"), ("label", "labels", "fine_label")


def is_test(file: Path, root: Path) -> bool:
    """Whether a file below a folder is of the test split: its name or a folder's says so, as the hub writes them.

    >>> root = Path("data")
    >>> [is_test(root / name, root) for name in ("test/0000.parquet", "x-test-00000-of-00001.arrow", "tests.parquet")]
    [True, True, False]
    """
    *folders, name = file.relative_to(root).parts
    words = name.partition(".")[0].replace("_", "-").split("-")
    return "test" in (*folders, *words)


def read_tables(
    path: Path, tables: Iterable[tuple[Path, pa.Table, bool]], spec: DataSpec, passed_over: Sequence[str], **pool: Any
) -> Pool:
    """All rows of some tables as a pool.

    Args:
        path: Where the tables lie, for messages and the licence.
        tables: Each with its file, and whether it is of the test split.
        spec: Size and channels of the images.
        passed_over: What has been left out before.
        **pool: Further attributes of `Pool`.

    Raises:
        UserError: A table has no image or label column, a label without a name, or an image that cannot be read.
    """
    labels: list[str] = []
    test: list[bool] = []
    unlabelled = 0

    def images() -> Iterator[tuple[str, bytes]]:
        nonlocal unlabelled
        for file, table, is_of_test in tables:
            features = _features(file, table.schema)
            image_column, label_column = _columns(file, table.schema, features)
            names = features.get(label_column, {}).get("names")
            rows = zip(table[image_column].to_pylist(), table[label_column].to_pylist(), strict=True)
            for number, (image, label) in enumerate(rows):
                # The hub marks a withheld label with -1.
                if label in (None, -1, "") or (isinstance(label, float) and math.isnan(label)):
                    unlabelled += 1
                    continue
                if image is None or image["bytes"] is None:
                    raise UserError(f"row {number} of {file} has no image bytes: expected images embedded in the file")
                labels.append(_label(file, number, label, names))
                test.append(is_of_test)
                yield f"in row {number} of {file}", image["bytes"]

    decoded, remarks = decode(images(), spec)
    if not labels:
        raise UserError(f"{path} holds no labelled image: expected at least one row with an image and a label")
    found, codes = np.unique(labels, return_inverse=True)
    return Pool(
        images=decoded,
        families=by_label(codes, found),
        passed_over=(*passed_over, *([f"{count_noun(unlabelled, 'row')} without a label"] if unlabelled else [])),
        remarks=remarks,
        test=np.asarray(test),
        licence=f"images of {path}, under their owner's terms",
        **pool,
    )


def _label(file: Path, number: int, label: Any, names: Sequence[str] | None) -> str:
    """The name of a label.

    Raises:
        UserError: A number without a name, or no label at all.
    """
    if isinstance(label, list | dict | bool | float):
        raise UserError(f"row {number} of {file} has the label {label}: expected a whole number or a name")
    if names is None or isinstance(label, str):
        return str(label)
    if not 0 <= label < len(names):
        raise UserError(f"row {number} of {file} has the label {label}: expected 0 to {len(names) - 1}")
    return str(names[label])


def _features(file: Path, schema: pa.Schema) -> Mapping[str, Any]:
    """Hugging Face's description of the columns, empty where the file has none.

    Raises:
        UserError: It is there and cannot be read.
    """
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = described.get("info", {}).get("features", {})
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"{file} has metadata under 'huggingface' that is no description of columns ({error}): expected JSON, as "
            "the library datasets writes it; write the file anew"
        ) from error


def _columns(file: Path, schema: pa.Schema, features: Mapping[str, Any]) -> tuple[str, str]:
    """Names of the image and of the label column.

    Raises:
        UserError: One of them is missing, or there are several that it could be.
    """
    structs = [
        c.name
        for c in schema
        if pa.types.is_struct(c.type) and c.type.get_field_index("bytes") >= 0 and _may_be(features, c.name, "Image")
    ]
    classes = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    labels = [name for name in _LABELS if name in schema.names] or classes
    images = [name for name in _IMAGES if name in structs] or structs
    has = f"{file} has the columns {', '.join(schema.names)}"
    if not images:
        raise UserError(f"{has}: expected an image column with {{bytes, path}} structs")
    if not labels:
        raise UserError(f"{has}: expected a column 'label' or one of type ClassLabel")
    for kind, found, wanted in (("images", images, _IMAGES), ("labels", labels, _LABELS)):
        if len(found) > 1 and found[0] not in wanted:
            raise UserError(
                f"{has}: {kind} may be {' or '.join(found)}; expected one, or one called '{wanted[0]}': rename it"
            )
    return images[0], labels[0]


def _may_be(features: Mapping[str, Any], column: str, kind: str) -> bool:
    return column not in features or features[column].get("_type", kind) == kind
