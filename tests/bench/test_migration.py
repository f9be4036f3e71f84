"""Stores of the former schema: brought to the present one whole, in place or on the way in, and refused before that."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from dphyper.audits.store_check import check_store
from dphyper.bench import migration
from dphyper.bench.catalog import METHODS
from dphyper.bench.migration import migrate_file, migrate_store, migrated_frame
from dphyper.bench.searches import RecordedSearch
from dphyper.bench.store import SCHEMA, Row, Store
from dphyper.cli.main import main
from dphyper.core.errors import UserError
from dphyper.core.files import write_json
from dphyper.core.labels import SELECTIONS
from dphyper.core.specs import BaseSpec, Cell, content_hash
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.mechanisms import BestOfTrials, NoisyHistogram, OneShotMean, PoissonGradientSteps
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData


def without(plain: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in plain.items() if name not in names}


def former(store: Store, cell: Cell, *, secure: bool = False, **changes: Any) -> Path:
    """Write a finished cell as version 0.1.0 did; its releases are those that its method declares."""
    kind = METHODS[cell.method]
    cell = dataclasses.replace(cell, options=dataclasses.asdict(kind.options_type.parse(cell.method, cell.options)))
    ledger = Ledger(Budget(epsilon=cell.epsilon, delta=cell.delta, relation=Relation(cell.relation)))
    private = PrivateData(torch.zeros(cell.n, 3), n=cell.n, ledger=ledger, noise=NoiseSource.os())
    for mechanism in kind.mechanisms(ledger.budget, kind.options_type.parse(cell.method, cell.options)):
        match mechanism:
            case OneShotMean():
                private.release_mean(lambda x, rng: x, mechanism, role="embedding")
            case PoissonGradientSteps():
                list(private.gradient_steps(lambda x, rng: x, mechanism, role="gradient"))
            case NoisyHistogram():
                private.release_histogram(lambda x, rng: x, mechanism, role="votes")
            case BestOfTrials():
                private.best_of(lambda trial, rng: (None, 0.0), mechanism, role="choice")
    plain = {
        **ledger.to_json(),
        "schema": 1,
        "noise": {"source": "os", "sampler": "discrete" if secure else "continuous"},
    }
    for charge in plain["charges"]:
        del charge["attempt"]
        for part in (charge["mechanism"], *charge["mechanism"].get("trial", [])):
            part.update({"bins": 3} if part["kind"] == "NoisyHistogram" else {})
    spec = {**cell.to_dict(), "secure_noise": secure}
    spec["data"] = {key: value for key, value in spec["data"].items() if key not in ("development", "show_reference")}
    spec["base"] = without(spec["base"], "kind", "flips", "layers") | {"convolutions": False}
    spec = json.loads(json.dumps(spec))
    row = {
        "schema": 2, "cell": content_hash(spec), "status": "done", "error": "", "sweep": "old",
        "collection": "toy", "task": cell.task, "family": cell.task, "split": "private", "distance": "near",
        "n": cell.n, "method": cell.method, "role": kind.role, "epsilon": cell.epsilon, "delta": cell.delta,
        "relation": cell.relation, "embedding_dim": cell.embedding_dim, "seed": cell.seed, "noise_draw": 0,
        "private": True, "selection": kind.selection, "protocol": "p", "extractor": "efficientnet_lite0",
        "epsilon_spent": ledger.spent(), "fid": 1.5, "seconds_adapt": 2.0, "seconds_evaluate": 3.0, "commit": "c0ffee",
        "statement": f"Of ε. {SELECTIONS[kind.selection]}", "provenance": "abc",
        "versions": json.dumps({"dphyper": "0.1.0"}), **changes,
    }  # fmt: skip
    folder = store.directory(content_hash(spec))
    folder.mkdir(parents=True)
    for name, value in (("ledger.json", plain), ("cell.json", spec), ("row.json", row)):
        write_json(folder / name, value)
    (folder / "samples.npz").write_bytes(b"images")
    return folder


@pytest.fixture
def old(tmp_path: Path) -> Store:
    store = Store(tmp_path / "old")
    former(store, Cell(task="8", method="hypernetwork"))
    former(store, Cell(task="8", method="dp_sgd", options={"steps": 3}))
    former(store, Cell(task="8", method="privimage", options={"steps": 3}))
    former(store, Cell(task="8", method="dp_sgd_tuned", options={"steps": 3}))
    return store


def exported(store: Store, path: Path) -> Path:
    """The parquet file that version 0.1.0 would have written."""
    rows = []
    for folder in sorted(store.root.glob("cells/*")):
        texts = {name: (folder / f"{name}.json").read_text() for name in ("ledger", "cell")}
        rows.append({**json.loads((folder / "row.json").read_text()), "spec": texts["cell"], "ledger": texts["ledger"]})
    pd.DataFrame(rows).to_parquet(path, index=False)
    return path


def contents(store: Store) -> dict[str, Any]:
    return {
        str(path.relative_to(store.root)): path.read_bytes() if path.suffix == ".npz" else json.loads(path.read_text())
        for path in store.root.glob("cells/*/*.*")
    }


@pytest.mark.parametrize(
    "command", [["check", "--store"], ["report", "--store"], ["ls", "cells", "--store"], ["publish", "--out", "x"]]
)
def test_other_commands_name_the_one_that_helps(
    old: Store, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, str(old.root)])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"run  dphyper migrate {old.root}  first" in line


@pytest.mark.parametrize("action", ["plan", "run"])
def test_a_sweep_into_a_former_store_is_refused(
    old: Store, sweep_file: Callable[..., Path], action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["sweep", action, str(sweep_file(store=str(old.root)))])
    assert stopped.value.code == 2
    assert f"run  dphyper migrate {old.root}  first" in capsys.readouterr().err


def test_a_store_is_migrated_in_place(old: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["migrate", str(old.root)])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    for line in (
        "4 rows migrated",
        "2 private rows with their released outputs taken out",
        "1 rows of a private selection without their running times now",
        "1 rows of dp_sgd labelled unknown in place of tuned_public",
    ):
        assert line in said
    rows = old.rows().set_index("method")
    assert {*rows["schema"]} == {SCHEMA}
    assert {*rows["harness"]} == {"0.1.0"}
    assert "provenance" not in rows
    assert rows["selection"].to_dict() == {
        "dp_sgd": "unknown", "dp_sgd_tuned": "tuned_private", "hypernetwork": "tuned_public", "privimage": "unknown",
    }  # fmt: skip
    assert rows["statement"]["dp_sgd"] == f"Of ε. {SELECTIONS['unknown']}"
    assert rows["seconds_adapt"].isna().to_dict() == {method: method == "dp_sgd_tuned" for method in rows.index}
    for cell_id in rows["cell"]:
        assert old.cell(cell_id).id == cell_id
        assert (old.directory(cell_id) / "samples.npz").read_bytes() == b"images"
        ledger = json.loads((old.directory(cell_id) / "ledger.json").read_text())
        assert ledger["noise"]["sampler"] == "continuous"
        assert all(charge["output"] is None for charge in ledger["charges"])
    # What is left to find is that the code had faults: nothing else was bent on the way.
    assert all("private rows count since" in line for line in check_store(old))
    assert len(check_store(old)) == 4
    before = contents(old)
    assert migrate_store(old, ()) == {}
    assert contents(old) == before


def test_outputs_on_a_grid_stay(tmp_path: Path) -> None:
    store = Store(tmp_path)
    former(store, Cell(task="8", method="hypernetwork"), secure=True)
    assert migrate_store(store, ()) == {"rows migrated": 1}
    (cell_id,) = store.rows()["cell"]
    (charge,) = json.loads((store.directory(cell_id) / "ledger.json").read_text())["charges"]
    assert len(charge["output"]) == 4


def test_a_migration_that_was_stopped_anywhere_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def store_of(name: str) -> Store:
        store = Store(tmp_path / name)
        for method in ("hypernetwork", "dp_sgd"):
            former(store, Cell(task="8", method=method))
        return store

    whole = store_of("whole")
    migrate_store(whole, ())
    writes = 6  # ledger, spec and row of two cells
    for allowed in range(writes):
        store, done = store_of(f"stopped after {allowed}"), []

        def write(path: Path, value: Any, allowed: int = allowed, done: list[Path] = done) -> None:
            if len(done) == allowed:
                raise KeyboardInterrupt
            done.append(path)
            write_json(path, value)

        with monkeypatch.context() as patched:
            patched.setattr(migration, "write_json", write)
            with pytest.raises(KeyboardInterrupt):
                migrate_store(store, ())
        with pytest.raises(UserError, match="dphyper migrate"):
            store.rows()
        migrate_store(store, ())
        assert contents(store) == contents(whole)
    assert len(store.rows()) == 2


def test_a_file_is_migrated_and_merging_an_old_one_does_the_same(old: Store, tmp_path: Path) -> None:
    file = exported(old, tmp_path / "rows.parquet")
    assert Store(tmp_path / "old way in").merge(file) == 4
    assert migrate_file(file, ())["rows migrated"] == 4
    assert migrate_file(file, ()) == {}
    assert Store(tmp_path / "new way in").merge(file) == 4
    first, second = (Store(tmp_path / name) for name in ("old way in", "new way in"))
    assert contents(first) == contents(second)
    assert {*pd.read_parquet(file)["schema"]} == {SCHEMA}


def test_a_recorded_search_explains_options(old: Store, tmp_path: Path) -> None:
    tried = (({"steps": 3}, "tune"), ({"steps": 4}, "tune"))
    frame, _ = migrated_frame(
        pd.read_parquet(exported(old, tmp_path / "rows.parquet")), [RecordedSearch(settings={"dp_sgd": tried})]
    )
    rows = frame.set_index("method")
    assert (rows["selection"]["dp_sgd"], rows["search"]["dp_sgd"]) == ("tuned_public", "tune")
    assert (rows["selection"]["privimage"], rows["search"]["privimage"]) == ("unknown", "")


def test_an_edited_spec_and_twins_are_refused_before_anything_changes(old: Store, tmp_path: Path) -> None:
    file = exported(old, tmp_path / "rows.parquet")
    frame = pd.read_parquet(file)
    frame.assign(spec=frame["spec"].str.replace('"seed": 0', '"seed": 1')).to_parquet(file)
    with pytest.raises(UserError, match="it was edited"):
        migrate_file(file, ())
    former(old, Cell(task="8", method="hypernetwork"), secure=True)
    before = contents(old)
    with pytest.raises(UserError, match="differ in the sampler of the noise alone"):
        migrate_store(old, ())
    assert contents(old) == before
    with pytest.raises(UserError, match="has no row"):
        migrate_store(Store(tmp_path / "empty"), ())


def test_rows_of_an_unknown_schema_are_refused(old: Store, tmp_path: Path) -> None:
    file = exported(old, tmp_path / "rows.parquet")
    pd.read_parquet(file).assign(schema=1).to_parquet(file)
    with pytest.raises(UserError, match="rows of schema 1"):
        migrate_file(file, ())
    with pytest.raises(UserError, match="rows of schema 1"):
        Store(tmp_path / "new").merge(file)


def test_required_keys_of_a_row_are_there(old: Store) -> None:
    migrate_store(old, ())
    for cell_id in old.rows()["cell"]:
        assert Row.__required_keys__ <= {*old.row(cell_id)}


SCHEMA_3 = Path(__file__).parent / "data" / "rows_schema_3.parquet"


def test_real_rows_of_schema_3_keep_every_number_under_its_new_name() -> None:
    """A few rows of our own results, as version 0.2.0.dev0 wrote them."""
    before = pd.read_parquet(SCHEMA_3)
    after, counts = migrated_frame(before, ())
    assert counts == {"rows migrated": len(before)}
    assert set(after["schema"]) == {SCHEMA}
    names = {"fid": "frechet", "kid": "kernel", "fid_floor": "real_frechet", "kid_floor": "real_kernel",
             "floor_images": "num_real"}  # fmt: skip
    same = [name for name in before if name not in ("schema", "cell", "spec", "ledger", *names)]
    for old_name, new_name in [*names.items(), *((name, name) for name in same)]:
        pd.testing.assert_series_equal(before[old_name], after[new_name], check_names=False, check_dtype=False)
    for cell, spec, row in after[["cell", "spec", "row"]].itertuples(index=False):
        assert Cell.from_dict(json.loads(spec)).id == cell == json.loads(row)["cell"]
        assert {*Row.__required_keys__} <= {*json.loads(row)}


def test_an_edited_spec_of_schema_3_is_refused() -> None:
    frame = pd.read_parquet(SCHEMA_3)
    frame.loc[0, "spec"] = frame.loc[0, "spec"].replace('"seed": 0', '"seed": 7')
    with pytest.raises(UserError, match="it was edited, run its sweep again"):
        migrated_frame(frame, ())


def test_a_file_of_schema_3_is_merged_and_exported_again_without_loss(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    taken = store.merge(SCHEMA_3)
    frame = pd.read_parquet(store.export())
    assert len(frame) == taken == len(pd.read_parquet(SCHEMA_3))
    again = Store(tmp_path / "again")
    assert again.merge(store.root / "rows.parquet") == taken
    assert contents(again) == contents(store)


@pytest.mark.parametrize(("convolutions", "layers"), migration._LAYERS.items())
def test_specs_of_schema_4_name_their_layers(tmp_path: Path, convolutions: bool, layers: list[str]) -> None:
    cell = Cell(task="kettle", base=BaseSpec(layers=tuple(layers), rank=4))
    spec = json.loads(json.dumps(cell.to_dict()))
    spec["base"] = without(spec["base"], "flips", "layers") | {"convolutions": convolutions}
    row = {"schema": 4, "cell": content_hash(spec), "status": "done", "metrics": {"frechet": 1.5}}
    texts = {"row": json.dumps(row), "spec": json.dumps(spec), "ledger": "{}"}
    frame = pd.DataFrame([{"schema": 4, "cell": row["cell"], "frechet": 1.5, **texts}])
    found, counts = migrated_frame(frame, ())
    assert found[["cell", "frechet"]].to_numpy().tolist() == [[cell.id, 1.5]]
    assert counts["rows migrated"] == 1
    spec["base"]["rank"] = 5
    frame["spec"] = json.dumps(spec)
    with pytest.raises(UserError, match="it was edited"):
        migrated_frame(frame, ())
