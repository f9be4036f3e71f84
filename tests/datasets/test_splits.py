"""What is public, what leaves it, and that nothing public is ever adapted as if it were private."""

import io
import json
import stat
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from dphyper.bench.catalog import DATASETS
from dphyper.bench.store import Store
from dphyper.bench.tasks import Collection, Task
from dphyper.cli.main import main
from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets._duplicates import NEAR
from dphyper.datasets._families import by_label

Images = NDArray[np.uint8]
EACH = 40


def pictures(seed: int, number: int = EACH) -> Images:
    """(N, 16, 16) images that differ from each other, smooth enough for JPEG; nothing is brighter than 250."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 236, (number, 4, 4), np.uint8)
    fine = [Image.fromarray(each).resize((16, 16), Image.Resampling.BICUBIC) for each in coarse]
    return np.stack([np.asarray(image) for image in fine]).clip(0, 250)


HOLIDAY, PHANTOMS, PATIENTS = (pictures(seed) for seed in (1, 2, 3))
FAMILIES = {"holiday": HOLIDAY, "phantoms": PHANTOMS, "patients": PATIENTS}


def load(spec: DataSpec) -> Collection:
    collection: Collection = DATASETS[spec.scheme].load(spec)
    return collection


def small(source: str, **changes: Any) -> DataSpec:
    # One cluster, which holds all that is public.
    chosen = {"private": ("patients",), "tuning": ("phantoms",), "cluster_sizes": (1000,), "min_task_size": 5}
    return DataSpec(**{"source": source, **chosen, **changes})


def write_folder(root: Path, families: Mapping[str, Images] = FAMILIES) -> DataSpec:
    for family, images in families.items():
        (root / family).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(root / family / f"{i:03d}.png")
    return small(f"folder:{root}")


def of(collection: Collection, split: str) -> Images:
    """All images of a split, references included."""
    rows = [np.concatenate([task.indices, task.reference]) for task in collection.tasks if task.split == split]
    return np.asarray(collection.records[np.unique(np.concatenate(rows))], np.uint8)


def closest(a: Images, b: Images) -> float:
    difference = a.reshape(len(a), 1, -1).astype(float) - b.reshape(1, len(b), -1)
    return float(np.sqrt((difference**2).mean(-1)).min())


def jpeg(image: Images) -> Images:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=85)
    return np.asarray(Image.open(buffer))


def test_copies_of_private_images_leave_the_public_side(tmp_path: Path) -> None:
    copies = np.stack([jpeg(image) if i % 2 else image for i, image in enumerate(PATIENTS)])
    plain = load(write_folder(tmp_path / "plain"))
    assert plain.passed_over == ()
    copied = load(write_folder(tmp_path / "copied", {**FAMILIES, "holiday": np.concatenate([HOLIDAY, copies])}))
    assert copied.passed_over == (
        "40 images of the public family 'holiday', 20 equal and 20 nearly equal to images of the private family "
        "'patients'",
    )
    assert closest(of(copied, "public"), of(copied, "private")) > NEAR
    assert np.array_equal(of(copied, "private"), of(plain, "private"))  # none was dropped for its copy
    assert len(of(copied, "public")) == len(HOLIDAY)
    assert copied.public_fingerprint == plain.public_fingerprint


def test_copies_leave_the_tuning_side_too_and_of_tuning_images_the_public_one(tmp_path: Path) -> None:
    families = {
        "beach": np.concatenate([pictures(4), HOLIDAY[:2] + 1, PATIENTS[:1]]),
        "holiday": np.concatenate([HOLIDAY, HOLIDAY[:3], PHANTOMS[:6] + 2, PATIENTS[5:8] + 2, PATIENTS[5:8] + 2]),
        "phantoms": np.concatenate([PHANTOMS, PATIENTS[:4]]),
        "patients": PATIENTS,
    }
    collection = load(write_folder(tmp_path, families))
    assert collection.passed_over == (
        "3 exact duplicates",
        "4 images of the tuning family 'phantoms', equal to images of the private family 'patients'",
        "7 images of the public families 'holiday' (6), 'beach' (1), 1 equal and 6 nearly equal to images of the "
        "private family 'patients'",
        "6 images of the public family 'holiday', nearly equal to images of the tuning family 'phantoms'",
    )
    public, tuning, private = (of(collection, split) for split in ("public", "tuning", "private"))
    assert min(closest(public, private), closest(public, tuning), closest(tuning, private)) > NEAR
    assert [len(images) for images in (public, tuning, private)] == [
        2 * EACH + 2,
        EACH,
        EACH,
    ]  # beach's near copies stay


def test_a_family_of_copies_alone_is_named(tmp_path: Path) -> None:
    spec = write_folder(tmp_path, {**FAMILIES, "phantoms": PATIENTS})
    with pytest.raises(
        UserError, match=r"tuning family 'phantoms' .* has 0 images of its own beside 40 copies of others"
    ):
        load(spec)


def write_parquet(root: Path, train: Mapping[str, Images], test: Mapping[str, Images]) -> DataSpec:
    for name, families in (("train", train), ("test", test)):
        cells, labels = [], []
        for family, images in families.items():
            for image in images:
                buffer = io.BytesIO()
                Image.fromarray(image).save(buffer, "PNG")
                cells.append({"bytes": buffer.getvalue(), "path": None})
                labels.append(family)
        pq.write_table(pa.table({"img": cells, "label": labels}), root / f"{name}.parquet")
    return small(f"parquet:{root}")


def test_copies_of_and_among_test_images_leave(tmp_path: Path) -> None:
    more = pictures(5)
    train = {**FAMILIES, "holiday": np.concatenate([HOLIDAY, more[:3] + 1, more[20:22]])}
    test = {
        "holiday": PATIENTS[:7],  # used nowhere
        "phantoms": np.concatenate([more[20:30], PATIENTS[:4] + 1]),
        "patients": np.concatenate([more[:10], PATIENTS[:5]]),
    }
    collection = load(write_parquet(tmp_path, train, test))
    held_out = {task.id: (len(task), len(task.reference)) for task in collection.tasks if task.split != "public"}
    assert held_out == {"phantoms": (40, 10), "patients": (40, 10)}
    assert len(of(collection, "public")) == len(HOLIDAY)
    assert collection.passed_over == (
        "5 exact duplicates",
        "4 images of the tuning family 'phantoms', nearly equal to images of the private family 'patients'",
        "3 images of the public family 'holiday', nearly equal to images of the private family 'patients'",
        "2 images of the public family 'holiday', equal to images of the tuning family 'phantoms'",
    )


@pytest.mark.parametrize("hidden", [".thumbnails", ".ipynb_checkpoints", "__MACOSX", "@eaDir"])
def test_hidden_folders_are_no_families(hidden: str, tmp_path: Path) -> None:
    tiny = np.stack([np.asarray(Image.fromarray(image).resize((8, 8))) for image in PATIENTS])
    spec = write_folder(tmp_path / ".data", {**FAMILIES, hidden: tiny, f"patients/{hidden}": tiny})
    for junk in ("holiday/._000.png", "holiday/notes.txt", "over.png", ".over.png"):
        (tmp_path / ".data" / junk).write_bytes(b"junk")
    (tmp_path / ".data" / "patients" / "older").mkdir()
    collection = load(spec)
    assert {task.id for task in collection.tasks if task.kind == "family"} == FAMILIES.keys()
    assert collection.passed_over == (
        "2 hidden folders and 1 hidden file",
        "1 file of no image's suffix",
        "1 folder inside a family's folder",
        "1 image outside any family's folder",
    )
    (tmp_path / ".data" / hidden).rename(tmp_path / ".data" / "shown")
    assert any("of the public family 'shown'" in line for line in load(spec).passed_over)


def test_hidden_parquet_files_and_rows_without_a_label_are_counted(tmp_path: Path) -> None:
    spec = write_parquet(tmp_path, FAMILIES, {"patients": pictures(8, 1)})
    (tmp_path / "._train.parquet").write_bytes(b"junk")
    table = pq.read_table(tmp_path / "train.parquet").slice(0, 2)
    pq.write_table(table.set_column(1, "label", pa.array([None, "holiday"])), tmp_path / "more.parquet")
    collection = load(spec)
    assert collection.passed_over == ("1 hidden file", "1 row without a label", "1 exact duplicate")


POOL = np.concatenate([*FAMILIES.values(), pictures(6, 2)])
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "malad\u00e9s") for form in ("NFC", "NFD"))


def labelled(names: list[str], private: str) -> Callable[[Path], DataSpec]:
    def write(root: Path) -> DataSpec:
        labels = np.repeat([0, 1, 2, 3], [EACH, EACH, 2, EACH])
        images = np.concatenate([HOLIDAY, PHANTOMS, PATIENTS, pictures(6, 2)])
        np.savez(root / "a.npz", x=images, y=labels, names=np.asarray(names))
        return small(f"npz:{root / 'a.npz'}", private=(private,))

    return write


def strings(root: Path) -> DataSpec:
    labels = np.asarray(["holiday"] * EACH + ["phantoms"] * EACH + ["patients"] * 2 + [" patients"] * EACH)
    np.savez(root / "a.npz", x=POOL, y=labels)
    return small(f"npz:{root / 'a.npz'}")


def concepts(root: Path) -> DataSpec:
    sizes = [EACH, EACH, 2, EACH]
    np.savez(
        root / "a.npz",
        x=POOL,
        concept_index=np.arange(len(POOL)),
        concept_offsets=np.cumsum([0, *sizes]),
        concept_names=np.asarray(["holiday", "phantoms", "patients", "patients"]),
    )
    return small(f"npz:{root / 'a.npz'}")


def archives(root: Path) -> DataSpec:
    (root / "b").mkdir()
    np.savez(root / "a.npz", x=np.concatenate([HOLIDAY, PHANTOMS]), y=np.repeat([0, 1], EACH))
    for path, images in ((root / "c.npz", POOL[-EACH:]), (root / "b" / "c.npz", POOL[2 * EACH : -EACH])):
        np.savez(path, x=images, y=np.zeros(len(images), np.int64))
    source = "+".join(str(root / name) for name in ("a.npz", "c.npz", "b/c.npz"))
    return small(f"npz:{source}", private=("c.0",), tuning=("1",))


@pytest.mark.parametrize(
    "write",
    [
        labelled(["holiday", "phantoms", "patients", "patients"], "patients"),
        labelled(["holiday", "phantoms", "patients", "patients "], "patients"),
        labelled(["holiday", "phantoms", COMPOSED, DECOMPOSED], DECOMPOSED),
        strings,
        concepts,
        archives,
    ],
    ids=["equal", "space", "Unicode", "text labels", "concepts", "archives"],
)
def test_names_that_repeat_make_one_family_and_lose_no_row(write: Callable[[Path], DataSpec], tmp_path: Path) -> None:
    collection = load(write(tmp_path))
    (task,) = collection.select("private")
    assert len(task) == EACH + 2
    assert len(of(collection, "public")) == EACH


def test_different_names_stay_different_families(tmp_path: Path) -> None:
    collection = load(labelled(["holiday", "phantoms", "patients", "Patients"], "Patients")(tmp_path))
    assert len(collection.task("Patients")) == EACH
    assert len(of(collection, "public")) == EACH + 2


def test_a_label_without_a_name_is_an_error() -> None:
    assert by_label(np.asarray([0, 1]), ["a", "b"]).keys() == {"a", "b"}
    for labels in ([0, 2], [-1, 0]):
        with pytest.raises(ValueError, match="for 2 names"):
            by_label(np.asarray(labels), ["a", "b"])


def test_development_and_show_reference_are_the_sources_and_the_users(tmp_path: Path) -> None:
    spec = write_folder(tmp_path)
    plain, marked = load(spec), load(replace(spec, development=("patients", "holiday"), show_reference=True))
    assert not plain.show_reference
    assert not any(task.development for task in plain.tasks)
    assert marked.show_reference
    assert {task.id for task in marked.tasks if task.development} == {"patients", "holiday"}
    assert load(DataSpec(source="digits8")).show_reference
    with pytest.raises(UserError, match="unknown family 'patient': did you mean 'patients'"):
        load(replace(spec, development=("patient",)))


def test_development_families_of_further_archives_need_not_be_held_out(tmp_path: Path) -> None:
    spec = archives(tmp_path)
    np.savez(tmp_path / "d.npz", x=pictures(9), y=np.repeat([0, 1], EACH // 2))
    spec = replace(spec, source=f"{spec.source}+{tmp_path / 'd.npz'}", development=("c.0", "d.1"))
    assert [task.id for task in load(spec).tasks if task.development] == ["c.0"]
    with pytest.raises(UserError, match=r"unknown family 'd.2'"):
        load(replace(spec, development=("d.2",)))


def toy(records: Images) -> Collection:
    tasks = (
        Task(id="a", family="a", split="public", indices=np.arange(3)),
        Task(id="b", family="b", split="tuning", indices=np.arange(3, 6)),
        Task(id="c", family="c", split="private", indices=np.arange(6, 9)),
        Task(id="cluster2/000", family="cluster2/000", split="public", indices=np.arange(3), kind="cluster"),
    )
    return Collection(name="toy", records=records, tasks=tasks)


def test_a_provenance_is_told_by_nobody_without_the_key(tmp_path: Path) -> None:
    records = pictures(7, 9)[..., None]
    collection, shuffled = toy(records), toy(records[[0, 1, 2, 3, 4, 5, 8, 6, 7]])
    changed = toy(np.concatenate([records[:8], records[8:] + 1]))
    key = Store(tmp_path).key()
    assert collection.provenance("c", key) == shuffled.provenance("c", key)
    assert collection.provenance("c", key) != changed.provenance("c", key)
    assert collection.provenance("c", key) != collection.provenance("c", Store(tmp_path / "other").key())
    assert len(key) == 32
    assert Store(tmp_path).key() == key
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    with pytest.raises(ValueError, match=r"key .* is empty"):
        collection.provenance("c", b"")


def test_only_what_is_held_out_is_drawn() -> None:
    collection = toy(pictures(7, 9)[..., None])
    assert len(collection.draw("b", 2, 0).records) == len(collection.draw("c", 2, 0).records) == 2
    with pytest.raises(
        UserError, match=r"public: .* expected one of 'b' \(tuning\), 'c' \(private\), or name its family in"
    ):
        collection.draw("a", 2, 0)
    with pytest.raises(UserError, match=r"expected one of 'b' \(tuning\), 'c' \(private\)$"):
        collection.draw("cluster2/000", 2, 0)


def dphyper(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code, printed.out, printed.err


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A sweep file on a folder without data.private, whose first families are thus public; one has a copy."""
    copies = {"D": np.concatenate([pictures(14), pictures(11)[:1]])}
    write_folder(tmp_path / "letters", {name: pictures(10 + i) for i, name in enumerate("ABC")} | copies)
    sweep = {
        "name": "letters",
        "store": str(tmp_path / "store"),
        "wandb": "off",
        "performance": {"cache": str(tmp_path / "cache")},
        "cell": {
            "data": {"source": f"folder:{tmp_path / 'letters'}", "cluster_sizes": []},
            "base": {"block_out_channels": [16, 32], "train_steps": 1},
            "n": 16,
        },
        "grid": [{"method": ["dp_sgd"]}],
    }
    path = tmp_path / "letters.yaml"
    path.write_text(json.dumps(sweep))  # JSON is YAML
    return path


@pytest.mark.parametrize("command", ["run", "plan", "sweep", "audit"])
def test_no_command_adapts_a_public_task(command: str, letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = json.loads(letters.read_text())
    arguments: list[str | Path]
    match command:
        case "run":
            data = ["--data.source", sweep["cell"]["data"]["source"], "--method", "dp_sgd", "--n", "16"]
            arguments = ["run", *data, "--store", sweep["store"], "--wandb", "off", "--task", "A"]
        case action:
            letters.write_text(json.dumps({**sweep, "cell": {**sweep["cell"], "task": "A"}}))
            arguments = ["sweep", action.replace("sweep", "run"), letters]
            if action == "audit":
                arguments = ["audit", "dp_sgd", "--sweep", letters]
    status, _, errors = dphyper(capsys, *arguments)
    assert status == 2
    (line,) = errors.splitlines()
    assert "task 'A' of 'letters' is public" in line
    assert "expected one of 'B' (tuning), 'C' (private), 'D' (private), or name its family in data.private" in line
    assert not list(letters.parent.rglob("row.json"))
    assert not list(letters.parent.rglob("done.json"))


def test_a_plan_and_a_listing_say_what_was_left_out(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = json.loads(letters.read_text())
    said = "data: 1 image of the tuning family 'B', equal to images of the private family 'D'\n"
    letters.write_text(json.dumps({**sweep, "cell": {**sweep["cell"], "task": "D"}, "grid": [{"seed": [0, 1]}]}))
    status, out, _ = dphyper(capsys, "sweep", "plan", letters)
    assert (status, out.count(said)) == (0, 1)
    status, out, _ = dphyper(capsys, "ls", "tasks", "--source", sweep["cell"]["data"]["source"])
    assert (status, out.count(said)) == (0, 1)
    assert out.splitlines()[0].split() == ["public", "40", "A"]
    chosen = ["--source", sweep["cell"]["data"]["source"], "--data.private", "[A]", "--data.tuning", "[D]"]
    status, out, _ = dphyper(capsys, "ls", "tasks", *chosen)
    assert (status, out.count("private      40 A\n"), out.count("tuning       41 D\n")) == (0, 1, 1)
    assert "data: 1 image of the public family 'B', equal to images of the tuning family 'D'\n" in out
    errors = dphyper(capsys, "ls", "tasks", "--data.privte", "[A]")[2]
    assert "unknown key 'data.privte': did you mean 'data.private'?" in errors
