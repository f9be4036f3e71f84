"""The glyphs: hundreds of public tasks, large held-out ones, and equal whatever the order of sets."""

import os
import subprocess
import sys
from typing import Any

import pytest

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets import glyphs
from dphyper.datasets.glyphs import Glyphs


def test_glyphs_are_equal_in_another_process_that_orders_sets_differently(load_once: Any) -> None:
    _, collection = load_once("glyphs")
    code = (
        "from dphyper.core.specs import DataSpec; from dphyper.datasets.glyphs import Glyphs; "
        "print(Glyphs.load(DataSpec()).public_fingerprint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": "7"}, capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == collection.public_fingerprint


def test_glyphs_offer_hundreds_of_public_tasks_and_large_held_out_ones(load_once: Any) -> None:
    _, collection = load_once("glyphs")
    assert len(collection.select("public")) >= 300
    assert {task.id for task in collection.select("private")} == set(glyphs.PRIVATE)
    assert {task.id for task in collection.select("tuning")} == set(glyphs.TUNING)
    for task in collection.tasks:
        if task.split != "public":
            assert len(task) >= 128 + 300
            assert (task.distance == "far") == (task.id == glyphs.DIGITS)
    assert [task.id for task in collection.tasks if task.development] == [glyphs.DIGITS]
    assert collection.show_reference
    # Near copies of held-out glyphs leave, and they are few.
    left = [line for line in collection.remarks if "nearly equal to images of" in line]
    assert 1 <= sum(int(line.split()[0]) for line in left if "public" in line or "no family" in line) <= 40


def test_without_qtawesome_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dphyper.datasets.glyphs.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install qtawesome") as caught:
        Glyphs.load(DataSpec())
    assert "\n" not in str(caught.value)
