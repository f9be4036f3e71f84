"""Which files of a folder are data, and which an operating system or a program has put there for itself.

Guarantees that no file below a hidden folder is taken for data: such folders hold thumbnails and earlier copies of
the images beside them, which would become another family.
"""

from collections.abc import Iterable
from pathlib import Path

from dphyper.datasets._families import count_noun

# Folders without a leading dot that macOS archives, network storage and Windows make.
HIDDEN = frozenset(
    {"__macosx", "@eadir", "@recycle", "#recycle", "$recycle.bin", "lost+found", "system volume information"}
)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is hidden.

    >>> [is_hidden(name) for name in (".thumbnails", "._0001.png", "__MACOSX", "patients")]
    [True, True, True, False]
    """
    return name.startswith(".") or name.lower() in HIDDEN


def visible_files(root: Path, files: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """The files of a folder that are neither hidden nor in a hidden folder.

    Args:
        root: The folder. Its own name, and what lies above it, may be hidden.
        files: Files below it.

    Returns:
        The visible files, sorted, and a line that counts the hidden files and folders, if there are any.
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
    counts = [count_noun(n, f"hidden {noun}") for n, noun in ((len(folders), "folder"), (hidden, "file")) if n]
    return shown, [" and ".join(counts)] if counts else []
