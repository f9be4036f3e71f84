"""Registries of outside packages: found by entry points, checked when looked up, refused in one line."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dphyper.core.errors import UserError
from dphyper.core.registry import Registry

Install = Callable[..., Path]
GROUP = "dphyper.toys"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution with one module and entry points on the path, as pip would."""

    def put(name: str, source: str, **points: str) -> Path:
        folder = tmp_path / name
        metadata = folder / f"{name}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"{name}.py").write_text(source)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "".join(f"{point} = {location}\n" for point, location in points.items())
        (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
        monkeypatch.syspath_prepend(str(folder))
        return folder

    return put


def registry() -> Registry[Path]:
    return Registry("toy", "pathlib:Path", GROUP)


def test_a_class_of_an_outside_package_is_found_and_imported_late(install: Install) -> None:
    install("toybox", "from pathlib import Path\n\n\nclass Toy(Path):\n    '''A toy.'''\n", toy="toybox:Toy")
    toys = registry()
    assert (list(toys), len(toys), "toy" in toys, "other" in toys) == (["toy"], 1, True, False)
    assert toys.card("toy").summary == "A toy."
    assert "toybox" not in sys.modules
    assert toys["toy"].__name__ == "Toy"


@pytest.mark.parametrize(
    ("source", "location", "message"),
    [
        (
            "class Toy: pass\n",
            "toybox1:Toy",
            "toy 'toy' is registered as toybox1:Toy, which is no subclass of pathlib:Path",
        ),
        ("Toy = 3\n", "toybox2:Toy", "which is no subclass of pathlib:Path: derive it from that class"),
        ("", "toybox3:Toy", "which cannot be imported .*has no attribute 'Toy'"),
        ("import not_installed\n", "toybox4:Toy", "which cannot be imported .No module named 'not_installed'"),
        ("", "toybox5", "which cannot be imported .*expected module:Class"),
    ],
)
def test_the_wrong_thing_is_refused_in_one_line(install: Install, source: str, location: str, message: str) -> None:
    install(location.split(":", maxsplit=1)[0], source, toy=location)
    with pytest.raises(UserError, match=message) as caught:
        registry()["toy"]
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_answered_by_the_nearest(install: Install) -> None:
    install("toybox6", "", bear="toybox6:Bear")
    for asked in (lambda: registry()["baer"], lambda: registry().card("baer")):
        with pytest.raises(UserError, match="unknown toy 'baer': did you mean 'bear'"):
            asked()


def test_a_name_that_two_packages_claim_is_an_error_that_shows_both(install: Install) -> None:
    install("first", "", toy="first:Toy")
    install("second", "", toy="second:Toy")
    with pytest.raises(
        UserError, match=r"toy 'toy' is registered twice, as (first|second):Toy and as (first|second):Toy"
    ):
        registry()["toy"]
    assert "toy" in registry()  # lists and help still come
