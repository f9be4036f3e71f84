"""Imports point one way: each package may know those that lie under it, and no file is an exception.

All imports count, those inside functions too, and so do strings that name a module, such as those of registries and of
patches.
"""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOTS = ("bench", "methods", "datasets", "sweeps", "reports")
MAY_IMPORT = {
    "core": set(),
    "privacy": {"core"},
    "targets": {"core"},
    "metrics": {"core"},
    "bench": {"core", "privacy", "targets", "metrics"},
    "methods": {"core", "privacy", "targets", "bench"},
    "datasets": {"core", "bench"},
    "audits": {"core", "privacy", "targets", "metrics", "bench"},
    "sweeps": {"core", "metrics", "bench"},
    "reports": {"core", "metrics", "bench"},
    "studies": {"core", "privacy", "targets", "metrics", "bench", "methods", "datasets", "audits", "sweeps", "reports"},
    "cli": {"core", "privacy", "targets", "metrics", "bench", "audits", "sweeps", "reports", "studies"},
}
# A module, or what is in one; a group of entry points, such as dphyper.methods, has two parts only.
NAMED = re.compile(r"dphyper\.(\w+)\.\w+[\w.]*(:\w+)?")


def arrows(source: str) -> Iterator[str]:
    """The packages that a module names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED.fullmatch(node.value):
            names = [node.value]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("dphyper."))


def test_imports_point_one_way() -> None:
    checked = 0
    for root in ROOTS:
        for path in sorted((ROOT / root / "dphyper").rglob("*.py")):
            package = path.relative_to(ROOT / root / "dphyper").parts[0]
            for other in arrows(path.read_text()):
                checked += 1
                allowed = MAY_IMPORT[package] | {package}
                assert other in allowed, f"{path.relative_to(ROOT)} names dphyper.{other}, which lies above it"
    assert checked > 500


def test_the_order_has_no_circle() -> None:
    assert len([*TopologicalSorter(MAY_IMPORT).static_order()]) == len(MAY_IMPORT)


def test_every_package_has_a_place_in_the_order() -> None:
    found = {path.name for root in ROOTS for path in (ROOT / root / "dphyper").iterdir() if path.is_dir()}
    assert found - {"__pycache__"} == set(MAY_IMPORT)


def test_arrows_are_found_wherever_they_stand() -> None:
    source = """
from dphyper.core.errors import UserError
def late():
    import dphyper.cli.main
    patch("dphyper.privacy.noisy_sum.clip_rows")
    Registry("method", "dphyper.bench.method:Method", "dphyper.methods")
"""
    assert sorted(arrows(source)) == ["bench", "cli", "core", "privacy"]
