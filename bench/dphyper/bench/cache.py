"""A cache of folders that many processes share: each entry is made once, appears whole, and is checked when read.

An entry is made in a folder beside its place and renamed into it, with a list of its files and their hashes. A process
that is killed leaves the work folder behind, and whoever makes the entry next goes on there. An entry whose files do
not agree with the list is reported in one line and made again. Nothing is ever removed for age or size.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from dphyper.core.files import write_json

CONTENTS = "contents.json"


class Cache:
    """Entries in a folder.

    Args:
        root: Created when missing.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def entry(self, kind: str, key: str, make: Callable[[Path, Path], None]) -> Path:
        """The folder of an entry, made first where it is missing or damaged; other processes wait meanwhile.

        Args:
            kind: Folder of entries of one kind, such as ``base``.
            key: Hash of all that the entry depends on.
            make: Writes the entry's files into its first argument, an empty folder. The second is a folder that
                survives a kill: what an interrupted call left in it, the next one finds there.
        """
        place = self.root / kind / key
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):
            if place.exists() and (damage := _damage(place)):
                print(f"cache: entry {place} is damaged ({damage}): it is made again", flush=True)
                shutil.rmtree(place)
            if not place.exists():
                unfinished = place.with_name(f".{key}.unfinished")
                unfinished.mkdir(exist_ok=True)
                # Its own folder each time: hosts whose file system shares no locks may get here together.
                with tempfile.TemporaryDirectory(prefix=f".{key}.", dir=place.parent) as folder:
                    result = Path(folder) / "result"
                    result.mkdir()
                    make(result, unfinished)
                    write_json(result / CONTENTS, _digests(result))
                    try:
                        os.replace(result, place)
                    except OSError:
                        if not place.exists():
                            raise
                shutil.rmtree(unfinished, ignore_errors=True)
        return place

    def shared(self, kind: str, key: str) -> Path:
        """A folder that stays, for files that several entries go on from; each is to be put there whole."""
        place = self.root / kind / f".{key}.shared"
        place.mkdir(parents=True, exist_ok=True)
        return place


def _digests(folder: Path) -> dict[str, str]:
    """Every file but the list itself to the hash of its content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CONTENTS)
    return {str(path.relative_to(folder)): _digest(path) for path in files}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damage(place: Path) -> str:
    """What is wrong with an entry; empty if nothing is."""
    try:
        expected = json.loads((place / CONTENTS).read_text())
    except (OSError, ValueError):
        return f"{CONTENTS} is missing or cannot be read"
    found = _digests(place)
    wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    return f"{wrong[0]} is not what was written" if wrong else ""
