"""Which files of a folder are data: not those that an operating system or a program has put there for itself.

Guarantees that no file below a hidden folder is taken for data: such folders hold thumbnails and earlier copies of the
images beside them, in another family than theirs.
"""

from collections.abc import Iterable
from pathlib import Path

from dphyper.datasets._families import counted

# Folders without a dot that macOS' archives, network storages and Windows make.
HIDDEN = frozenset(
    {"__macosx", "@eadir", "@recycle", "#recycle", "$recycle.bin", "lost+found", "system volume information"}
)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is hidden.

    >>> [is_hidden(name) for name in (".thumbnails", "._0001.png", "__MACOSX", "patients")]
    [True, True, True, False]
    """
    return name.startswith(".") or name.lower() in HIDDEN


def visible(root: Path, files: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """The files of which no part below ``root`` is hidden, sorted, and a line on those passed over, if there are any.

    Args:
        root: Folder whose own name, and what lies above it, may be hidden.
        files: Files below it.
    """
    shown, folders, hidden = [], set(), 0
    for file in sorted(files):
        parts = file.relative_to(root).parts
        depth = next((depth for depth, part in enumerate(parts) if is_hidden(part)), None)
        if depth is None:
            shown.append(file)
        elif depth == len(parts) - 1 and not file.is_dir():
            hidden += 1
        else:
            folders.add(parts[: depth + 1])
    counts = [counted(n, f"hidden {noun}") for n, noun in ((len(folders), "folder"), (hidden, "file")) if n]
    return shown, [" and ".join(counts)] if counts else []
