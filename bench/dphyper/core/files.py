"""Files that appear whole or not at all, and files that are not what was written.

A reader, or a run that goes on after a kill, meets the old file or the whole new one, never a part; also where the disk
fills up. It does not order the writes of two processes: take a lock where both may write.
"""

import functools
import json
import os
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dphyper.core.errors import UserError


class DamagedFileError(UserError):
    """A file that is missing or is not what was written; the message names it."""


@contextmanager
def whole_file(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """An empty file beside ``path`` to write to, which takes its place when the block ends well.

    Args:
        path: In a folder that exists.
        mode: Permissions before the umask, whatever the library that writes the file would give it.
    """
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        temporary.touch(mode)
        permitted = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(permitted)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json_text(value))


def write_json_once(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON unless the file is there: of several that write at once, one does."""
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        temporary.write_text(json_text(value))
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def json_text(value: Mapping[str, Any]) -> str:
    """JSON as all our files have it."""
    return json.dumps(value, indent=1, sort_keys=True)


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        DamagedFileError: The file is missing, or holds something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DamagedFileError(f"'{path}' is missing") from error
    except OSError as error:
        raise DamagedFileError(f"'{path}' cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"'{path}' is damaged ({type(error).__name__}: {error})") from error
    if not isinstance(value, dict):
        raise DamagedFileError(f"'{path}' is damaged: it holds no mapping")
    return value


@functools.cache
def warn(line: str) -> None:
    """Tell the user, once in a process, what is left out and why."""
    print(f"dphyper: {line}", file=sys.stderr, flush=True)
