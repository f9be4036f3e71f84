"""A folder that the library `datasets` wrote, as a collection: ``hf:PATH``.

Read are folders of ``save_to_disk`` and of the library's cache: all ``*.arrow`` files below them, in Arrow's stream
format. `_tables.py` says what the columns are. The split ``test`` serves only as reference of tuning and private
classes; all other splits are training data. The library itself is not needed. A selection that was cached without its
rows (``cache-*.arrow``, indices in ``state.json``) is refused: it would be read as the whole.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets._cut import Pool, PooledSource
from dphyper.datasets._files import visible_files
from dphyper.datasets._tables import is_test, read_tables


class HF(PooledSource):
    """A folder that the library datasets wrote with save_to_disk, or its cache: ``hf:PATH``."""

    @classmethod
    def read(cls, spec: DataSpec) -> Pool:
        """Read all splits; private by default the last two classes, tuning the one before.

        Raises:
            UserError: The path is missing or holds no Arrow file, a file is corrupt or has no image or label column, or
                only a selection of its rows is meant.
        """
        path = Path(spec.argument)
        files, passed_over = visible_files(path, path.rglob("*.arrow"))
        if not spec.argument or not files:
            raise UserError(
                f"data.source '{spec.source}': expected hf:PATH with a folder of the library datasets, which holds "
                ".arrow files; for .parquet files say parquet:PATH"
            )
        for state in path.rglob("state.json"):
            _refuse_selection(state)
        return read_tables(path, _tables(path, files), spec, passed_over, name=path.stem)


def _refuse_selection(state: Path) -> None:
    try:
        indices = json.loads(state.read_text()).get("_indices_data_files")
    except (ValueError, AttributeError, OSError) as error:
        raise UserError(f"cannot read {state} ({error}): expected JSON of the library datasets") from error
    if indices:
        raise UserError(
            f"{state.parent} holds a selection of rows beside the rows: expected the rows alone, call "
            "flatten_indices() before save_to_disk"
        )


def _tables(path: Path, files: list[Path]) -> Iterator[tuple[Path, pa.Table, bool]]:
    for file in files:
        if file.name.startswith("cache-"):
            raise UserError(
                f"{file} is the cache of a selection or a map, beside the data that it was made from: expected one of "
                "them, save the one that you mean with save_to_disk"
            )
        try:
            with pa.memory_map(str(file)) as source:
                table = pa.ipc.open_stream(source).read_all()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"cannot read {file} ({error}): expected an intact Arrow stream") from error
        yield file, table, is_test(file, path)
