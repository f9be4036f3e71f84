"""Parquet files in Hugging Face's layout as a collection: ``parquet:PATH``, a file or a folder of one configuration.

The image column holds {bytes, path} structs and the label column integers. Names of the labels stand in the schema's
metadata under ``huggingface`` (ClassLabel). Without that metadata the first struct column with ``bytes`` and the column
``label`` are taken. In a folder, files called ``test*`` are the test split, which serves only as reference of tuning
and private classes; all other files are training data.

Guarantees that no library of the hub is needed. Images that are only linked by path are refused. Rows without a label
and hidden files are passed over and counted.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dphyper.bench.source import Source
from dphyper.bench.tasks import Collection
from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets._cut import cut
from dphyper.datasets._families import by_label, count_noun
from dphyper.datasets._files import visible_files
from dphyper.datasets._images import decode


class Parquet(Source):
    """Parquet files in Hugging Face's layout: ``parquet:PATH``, a file or a folder."""

    @classmethod
    def load(cls, spec: DataSpec) -> Collection:
        """Load all files; private by default CIFAR-10's automobile and horse (tuning cat), else the last two.

        Raises:
            UserError: The path is missing, holds no parquet file, or has no image or label column; or an image is
                corrupt.
        """
        path = Path(spec.argument)
        files, passed_over = ([path], []) if path.is_file() else visible_files(path, path.rglob("*.parquet"))
        if not spec.argument or not files:
            raise UserError(
                f"data.source '{spec.source}': expected parquet:PATH with a .parquet file or a folder that holds some"
            )
        images, labels, test, unlabelled = [], [], [], 0
        for file in files:
            try:
                table = pq.read_table(file)
            except (pa.ArrowInvalid, OSError) as error:
                raise UserError(f"cannot read {file} ({error}): expected an intact parquet file") from error
            features = _features(table.schema)
            image_column, label_column = _columns(file, table.schema, features)
            names = features.get(label_column, {}).get("names")
            rows = zip(table[image_column].to_pylist(), table[label_column].to_pylist(), strict=True)
            for number, (image, label) in enumerate(rows):
                # The hub marks a withheld label with -1.
                if label in (None, -1) or (isinstance(label, float) and math.isnan(label)):
                    unlabelled += 1
                    continue
                if names and not 0 <= label < len(names):
                    raise UserError(f"row {number} of {file} has the label {label}: expected 0 to {len(names) - 1}")
                if image is None or image["bytes"] is None:
                    raise UserError(f"row {number} of {file} has no image bytes: expected images embedded in the file")
                images.append(decode(image["bytes"], f"in row {number} of {file}", spec))
                labels.append(str(names[label] if names else label))
                test.append(file != path and file.name.startswith("test"))
        if not images:
            raise UserError(f"{path} holds no labelled image: expected at least one row with an image and a label")
        if unlabelled:
            passed_over.append(f"{count_noun(unlabelled, 'row')} without a label")
        found, codes = np.unique(labels, return_inverse=True)
        return cut(
            name=path.stem,
            images=np.stack(images),
            families=by_label(codes, found),
            spec=spec,
            passed_over=passed_over,
            private=("automobile", "horse"),
            tuning=("cat",),
            test=np.asarray(test),
            licence=f"images of {path}, under their owner's terms",
        )


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """Hugging Face's description of the columns, empty where the file has none."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features: Mapping[str, Any] = metadata.get("info", {}).get("features", {})
    return features


def _columns(file: Path, schema: pa.Schema, features: Mapping[str, Any]) -> tuple[str, str]:
    """Names of the image and of the label column.

    Raises:
        UserError: One of them is missing.
    """
    structs = [c.name for c in schema if pa.types.is_struct(c.type) and c.type.get_field_index("bytes") >= 0]
    classes = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    if not structs:
        raise UserError(
            f"{file} has the columns {', '.join(schema.names)}: expected an image column with {{bytes, path}} structs"
        )
    if "label" not in schema.names and not classes:
        raise UserError(
            f"{file} has the columns {', '.join(schema.names)}: expected a column 'label' or one of type ClassLabel"
        )
    return structs[0], "label" if "label" in schema.names else classes[0]
