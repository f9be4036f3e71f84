"""Parquet files in Hugging Face's layout as a collection: ``parquet:PATH``, a file or a folder of one configuration.

`_tables.py` says what the columns are. Files whose name, or a folder's above them, says ``test`` are the test split,
which serves only as reference of tuning and private classes; all other files are training data. Hidden files are passed
over and counted.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets._cut import Pool, PooledSource
from dphyper.datasets._files import visible_files
from dphyper.datasets._tables import is_test, read_tables


class Parquet(PooledSource):
    """Parquet files in Hugging Face's layout: ``parquet:PATH``, a file or a folder."""

    @classmethod
    def read(cls, spec: DataSpec) -> Pool:
        """Read all files; private by default CIFAR-10's automobile and horse (tuning cat), else the last two.

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
        return read_tables(
            path,
            _tables(path, files),
            spec,
            passed_over,
            name=path.stem,
            private=("automobile", "horse"),
            tuning=("cat",),
        )


def _tables(path: Path, files: list[Path]) -> Iterator[tuple[Path, pa.Table, bool]]:
    for file in files:
        try:
            # Folders such as `label=3` above a file are no columns.
            table = pq.read_table(file, partitioning=None)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"cannot read {file} ({error}): expected an intact parquet file") from error
        yield file, table, file != path and is_test(file, path)
