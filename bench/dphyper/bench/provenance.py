"""Which code made a row, with which packages, on which machine."""

import functools
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

_PACKAGES = ("dphyper", "torch", "diffusers", "peft", "opacus", "dp-accounting", "clean-fid", "scipy", "numpy")


@functools.cache
def provenance() -> dict[str, str]:
    """``commit`` (empty outside a repository), ``versions`` (JSON) and ``machine``."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    git = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "commit": git.stdout.strip(),
        "versions": json.dumps(versions, sort_keys=True),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
