"""``dphyper check``: what is no store is refused; what is found in one is in tests/audits/test_store_check.py."""

from collections.abc import Callable
from pathlib import Path


def test_checking_nothing(tmp_path: Path, refusal: Callable[..., str]) -> None:
    assert "has no row" in refusal("check", "--store", tmp_path / "nowhere")
