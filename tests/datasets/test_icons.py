"""Icons by synonyms and aliases, rendered once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets.icons import Icons


def small(source: str, **changes: Any) -> DataSpec:
    return DataSpec(**{"source": source, "image_size": 8, "cluster_sizes": (10,), "min_task_size": 5, **changes})


def test_icons_follow_synonyms_and_aliases(load_once: Any) -> None:
    spec, collection = load_once("icons")
    split = {task.id: task.split for task in collection.tasks if not task.id.startswith("cluster")}
    assert split == {"tree": "public", "flag": "public", "clock": "tuning", "car": "private", "mail": "private"}
    # "envelope-flag" is an alias of flag-1 in both sets, so these two are mail.
    assert len(collection.task("mail")) > len(collection.task("flag"))
    assert len(list(Path(spec.root).glob("icons-*.npz"))) == 1


def test_a_word_reaches_an_icon_through_an_alias_of_an_alias(tmp_path: Path, write: Any) -> None:
    spec = write["icons"](tmp_path)
    path = tmp_path / "json" / "one.json"
    before = len(Icons.load(spec).task("mail"))
    content = json.loads(path.read_text())
    content["aliases"] |= {"inbox": {"parent": "banner"}, "banner": {"parent": "flag-2"}, "lost": {"parent": "lost"}}
    path.write_text(json.dumps(content))
    assert len(Icons.load(spec).task("mail")) == before + 1


def bad_icons(content: str) -> Callable[[Path, Any], DataSpec]:
    def make(root: Path, write: Any) -> DataSpec:
        spec: DataSpec = write["icons"](root)
        (root / "json" / "bad.json").write_text(content)
        return spec

    return make


BAD: dict[str, tuple[Callable[..., DataSpec], str]] = {
    "missing": (lambda root, write: small(f"icons:{root}"), "unpacked @iconify/json"),
    "corrupt": (bad_icons("{"), r"cannot read the icon set .*bad\.json"),
    "not drawn": (
        bad_icons('{"prefix": "bad", "icons": {"car": {"body": "<path"}}}'),
        "cannot draw the icon bad:car",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str, tmp_path: Path, write: Any) -> None:
    make, message = BAD[case]
    with pytest.raises(UserError, match=message) as caught:
        Icons.load(make(tmp_path, write))
    assert "\n" not in str(caught.value)


def test_without_resvg_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any
) -> None:
    monkeypatch.setattr("dphyper.datasets.icons.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'dphyper\[icons\]'") as caught:
        Icons.load(write["icons"](tmp_path))
    assert "\n" not in str(caught.value)
