"""`check_store` finds each way in which a store can claim what its ledgers do not support."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dphyper.audits.store_check import check_store
from dphyper.bench.catalog import METHODS
from dphyper.bench.store import SCHEMA, Row, Store, sealed
from dphyper.core.files import write_json
from dphyper.core.labels import SOUND_SINCE
from dphyper.core.specs import Cell
from dphyper.privacy.accounting import calibrate, epsilon_of
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.mechanisms import (
    BestOfTrials,
    Mechanism,
    NoisyHistogram,
    OneShotMean,
    PoissonGradientSteps,
)
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData

OPTIONS = {"steps": 3, "sampling_prob": 0.5, "l2_clip_norm": 1.0}
TUNED_OPTIONS = {"steps": 3, "sampling_prob": 1.0, "l2_clip_norm": 1.0, "mean_trials": 4.0}
WARM_OPTIONS = {"steps": 3, "l2_clip_norm": 1.0}
TRIALS = BestOfTrials(
    trial=(PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=1.0, steps=3), NoisyHistogram()),
    mean_trials=4.0,
    noise_ratios=(1.0, 0.5),
)


def budget_of(cell: Cell) -> Budget:
    return Budget(epsilon=cell.epsilon, delta=cell.delta, relation=Relation(cell.relation))


def run(cell: Cell, mechanism: Mechanism | None, noise: NoiseSource | None = None) -> Ledger:
    """Release from zero records as a runner would."""
    ledger = Ledger(budget_of(cell))
    private = PrivateData(torch.zeros(cell.n, 3), n=cell.n, ledger=ledger, noise=noise or NoiseSource.os())
    for calibrated in calibrate(ledger.budget, mechanism) if mechanism else ():
        release(private, calibrated)
    return ledger


def declared(cell: Cell) -> Ledger:
    """Release what the method of a cell declares."""
    kind = METHODS[cell.method]
    ledger = Ledger(budget_of(cell))
    private = PrivateData(torch.zeros(cell.n, 3), n=cell.n, ledger=ledger, noise=NoiseSource.os())
    for mechanism in kind.mechanisms(ledger.budget, kind.options_type.parse(cell.method, cell.options)):
        release(private, mechanism)
    return ledger


def release(private: PrivateData, mechanism: Mechanism) -> None:
    match mechanism:
        case OneShotMean():
            private.release_mean(lambda x, rng: x, mechanism, role="embedding")
        case PoissonGradientSteps():
            list(private.gradient_steps(lambda x, rng: x, mechanism, role="gradient"))
        case NoisyHistogram():
            private.release_histogram(lambda x, rng: x, mechanism, role="votes")
        case BestOfTrials():
            private.best_of(lambda trial, rng: (None, 0.0), mechanism, role="choice")


def gradients(**changes: Any) -> PoissonGradientSteps:
    return PoissonGradientSteps(**{**OPTIONS, **changes})


def add(store: Store, cell: Cell, ledger: Ledger, frechet: float, **changes: Any) -> None:
    row = Row(
        schema=SCHEMA,
        cell=cell.id,
        status="done",
        error="",
        sweep="test",
        collection="digits8",
        task=cell.task,
        family=cell.task,
        split="private",
        development=False,
        distance="near",
        n=cell.n,
        method=cell.method,
        role="method",
        epsilon=cell.epsilon,
        delta=cell.delta,
        relation=cell.relation,
        embedding_dim=cell.embedding_dim,
        seed=cell.seed,
        noise_draw=cell.noise_draw,
        private=not cell.reproducible_noise,
        selection="fixed",
        search="",
        harness=SOUND_SINCE,
        commit="c0ffee",
        protocol="p",
        extractor="efficientnet_lite0",
        epsilon_spent=ledger.spent(),
        metrics={"frechet": frechet},
    )
    row.update(changes)  # type: ignore[typeddict-item]
    store.directory(cell.id).mkdir(parents=True, exist_ok=True)
    write_json(store.directory(cell.id) / "ledger.json", ledger.to_json())
    store.write(cell, row)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A sound store: DP-SGD and a hypernetwork at two ε, a floor and a ceiling, three seeds each."""
    store = Store(tmp_path)
    for seed in range(3):
        for epsilon in (1.0, 8.0):
            cell = Cell(task="8", method="dp_sgd", epsilon=epsilon, options=OPTIONS, seed=seed)
            add(store, cell, declared(cell), 40 + seed - epsilon)
            cell = Cell(task="8", method="hypernetwork", epsilon=epsilon, seed=seed)
            add(store, cell, declared(cell), 30 + seed - epsilon)
        cell = Cell(task="8", method="privimage", epsilon=1.0, options=WARM_OPTIONS, seed=seed)
        add(store, cell, declared(cell), 44 + seed)
        cell = Cell(task="8", method="dp_sgd_tuned", epsilon=1.0, options=TUNED_OPTIONS, seed=seed)
        add(store, cell, declared(cell), 45 + seed, selection="tuned_private")
        cell = Cell(task="8", method="public_only", epsilon=math.inf, seed=seed)
        add(store, cell, declared(cell), 50 + seed, role="floor")
        cell = Cell(task="8", method="nonprivate_lora", epsilon=math.inf, options={"steps": 3}, seed=seed)
        add(store, cell, declared(cell), 10 + seed, role="ceiling", private=False, selection="non_private")
    return store


def test_a_sound_store_has_no_finding(store: Store) -> None:
    assert check_store(store) == []


def edit_json(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change a file of a cell, and forge the hashes of its row, so that nobody can see that from them."""

    def apply(folder: Path) -> None:
        path = folder / name
        plain = json.loads(path.read_text())
        change(plain)
        path.write_text(json.dumps(plain))
        row = json.loads((folder / "row.json").read_text())
        write_json(folder / "row.json", sealed(row, (folder / "ledger.json").read_text()))

    return apply


def in_ledger(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return edit_json("ledger.json", change)


def in_row(**values: Any) -> Callable[[Path], None]:
    return edit_json("row.json", lambda row: row.update(values))


def in_charge(**values: Any) -> Callable[[Path], None]:
    return in_ledger(lambda plain: plain["charges"][0].update(values))


def in_mechanism(**values: Any) -> Callable[[Path], None]:
    return in_ledger(lambda plain: plain["charges"][0]["mechanism"].update(values))


@pytest.mark.parametrize(
    ("tamper", "finding"),
    [
        (in_row(epsilon_spent=0.5), "ε = 0.5 in the row"),
        (in_row(epsilon=0.5), "epsilon is 0.5 in the row"),
        (in_row(n=64), "n is 64 in the row"),
        (in_row(delta=1e-6), "rows of different delta"),
        (in_row(relation="replace_one"), "rows of different relation"),
        (in_row(protocol="other"), "rows of different protocol"),
        (in_row(selection="non_private"), "hyper-parameters were chosen on private records"),
        (in_ledger(lambda plain: plain.update(epsilon_spent=0.5)), "ε = 0.5 recorded in the ledger"),
        (in_ledger(lambda plain: plain.update(n=64)), "n = 64 in the ledger"),
        (in_ledger(lambda plain: plain["budget"].update(epsilon=2.0)), "its ledger is of"),
        (in_ledger(lambda plain: plain["budget"].update(relation="replace_one")), "spent of a budget of 1"),
        (in_ledger(lambda plain: plain["noise"].update(source="reproducible")), "drawn from a seed"),
        (in_ledger(lambda plain: plain.update(schema=7)), "ε cannot be derived from its ledger: UserError"),
        (in_ledger(lambda plain: plain.pop("budget")), "ε cannot be derived from its ledger: KeyError"),
        (in_charge(complete=False), "was charged and not completed"),
        (in_charge(noise_std=0.1), "has noise_std 0.1 recorded"),
        (in_charge(sensitivity=0.1), "has sensitivity 0.1 recorded"),
        (in_charge(event={"kind": "GaussianDpEvent", "noise_multiplier": 50.0}), "derived from the recorded events"),
        (in_charge(event={"kind": "LaplaceDpEvent", "noise_multiplier": 50.0}), "no accountant here"),
        (in_mechanism(steps=300), "spent of a budget of 1"),
        (in_mechanism(steps=2), "steps = 2 in its ledger, its spec 3"),
        (in_mechanism(sampling_prob=0.1), "sampling_prob = 0.1 in its ledger, its spec 0.5"),
        (in_mechanism(noise_multiplier=0.0), "records were used without noise"),
        (lambda folder: (folder / "ledger.json").unlink(), "its ledger is missing, so that nothing can be claimed"),
        (lambda folder: (folder / "ledger.json").write_text("{"), "its ledger cannot be read"),
        (lambda folder: (folder / "row.json").write_bytes(b"\x89PNG"), "row.json' is damaged (UnicodeDecodeError"),
        (edit_json("cell.json", lambda cell: cell.update(n=64)), "its spec is that of another cell, or was edited"),
    ],
)
def test_each_contradiction_is_found(store: Store, tamper: Callable[[Path], None], finding: str) -> None:
    cell = Cell(task="8", method="dp_sgd", epsilon=1.0, options=OPTIONS, seed=1)
    tamper(store.directory(cell.id))
    findings = check_store(store)
    assert any(finding in line for line in findings), findings
    assert all("\n" not in line for line in findings)


def in_trial(part: int, **values: Any) -> Callable[[Path], None]:
    return in_ledger(lambda plain: plain["charges"][0]["mechanism"]["trial"][part].update(values))


@pytest.mark.parametrize(
    ("tamper", "finding"),
    [
        (in_mechanism(mean_trials=40.0), "spent of a budget of 1"),
        (in_mechanism(mean_trials=2.0), "derived from the recorded events"),
        (in_mechanism(mean_trials=2.0), "mean_trials = 2.0 in its ledger, its spec 4.0"),
        (in_mechanism(shape=1.0), "derived from the recorded events"),
        (in_trial(0, steps=2), "steps = 2 in its ledger, its spec 3"),
        (in_trial(0, l2_clip_norm=2.0), "has sensitivity [1.0, 1.0] recorded, 2, 1 by its mechanism"),
        (in_trial(1, noise_multiplier=1.0), "spent of a budget of 1"),
        (in_trial(1, noise_multiplier=0.0), "records were used without noise"),
        (in_trial(1, kind="BestOfTrials"), "ε cannot be derived from its ledger"),
        (in_charge(noise_std=[1.0]), "has noise_std [1.0] recorded"),
        (in_charge(complete=False), "was charged and not completed"),
        (in_ledger(lambda plain: plain["charges"][0]["event"].update(mean=0.5)), "cannot be derived from its ledger"),
        (in_ledger(lambda plain: plain["charges"][0]["event"].update(mean=2.0)), "derived from the recorded events"),
        (in_row(selection="tuned_public"), "labelled tuned_public, but its ledger has a choice on the private records"),
        (in_ledger(lambda plain: plain.update(charges=[])), "chosen on private records without accounting"),
    ],
)
def test_each_contradiction_of_a_private_selection_is_found(
    store: Store, tamper: Callable[[Path], None], finding: str
) -> None:
    cell = Cell(task="8", method="dp_sgd_tuned", epsilon=1.0, options=TUNED_OPTIONS, seed=1)
    tamper(store.directory(cell.id))
    findings = check_store(store)
    assert any(finding in line for line in findings), findings
    assert all("\n" not in line for line in findings)


# --- completeness, and how a row came to be


PRIVIMAGE = Cell(task="8", method="privimage", epsilon=1.0, options=WARM_OPTIONS, seed=1)


@pytest.mark.parametrize("removed", [0, 1])
def test_a_release_that_is_missing_in_the_ledger_is_found(store: Store, removed: int) -> None:
    ledger = declared(PRIVIMAGE)
    gone = ledger.charges.pop(removed)
    add(store, PRIVIMAGE, ledger, 45.0)
    (finding,) = check_store(store)
    assert f"{type(gone.mechanism).__name__}(" in finding
    assert "is declared by its method, and not in its ledger" in finding


def test_a_release_that_the_method_does_not_declare_is_found(store: Store) -> None:
    cell = dataclasses.replace(PRIVIMAGE, method="public_only", options={})
    add(store, cell, run(cell, OneShotMean()), 45.0, role="floor")
    (finding,) = check_store(store)
    assert "role 'embedding' released OneShotMean(" in finding
    assert "which its method does not declare" in finding


@pytest.mark.parametrize(
    ("method", "options", "finding"),
    [
        ("elsewhere", {}, "its method is not installed here"),
        ("dp_sgd", {"stepz": 3}, "cannot be built from its spec (UserError: unknown option of method dp_sgd 'stepz'"),
    ],
)
def test_a_method_or_option_that_is_not_known_here_is_one_finding(
    tmp_path: Path, method: str, options: dict[str, Any], finding: str
) -> None:
    store, cell = Store(tmp_path), Cell(task="8", method=method, options=options)
    add(store, cell, run(cell, OneShotMean()), 45.0)
    (found,) = check_store(store)
    assert finding in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"harness": "0.1.0"}, f"made by dphyper 0.1.0, and private rows count since {SOUND_SINCE}"),
        ({"harness": ""}, "made by dphyper '', which is no version"),
        ({"commit": "c0ffee-dirty"}, "made from the changed commit c0ffee-dirty"),
        ({"commit": ""}, "made from no known commit"),
        ({"split": "public"}, "marked private, but its task is public"),
        (
            {"metrics": {"frechet": 45.0, "nearest_private": 1.0}},
            "its metric nearest_private was taken from the private records themselves",
        ),
    ],
)
def test_private_rows_that_support_no_claim_are_found(store: Store, changes: dict[str, Any], finding: str) -> None:
    add(store, PRIVIMAGE, declared(PRIVIMAGE), 45.0, **changes)
    (found,) = check_store(store)
    assert found.startswith(f"cell {PRIVIMAGE.id} (privimage, ε = 1): ")
    assert finding in found
    in_row(private=False)(store.directory(PRIVIMAGE.id))
    assert check_store(store) == []  # a row that claims nothing may come from anywhere


def test_an_interrupted_run_and_failed_attempts_are_told(store: Store) -> None:
    folder = store.directory(PRIVIMAGE.id)
    (folder / "ledger.interrupted.json").write_text((folder / "ledger.json").read_text())
    (found,) = check_store(store)
    assert "it was interrupted and drawn again: 'votes', 'gradient'" in found
    (folder / "ledger.interrupted.json").unlink()
    ledger = declared(PRIVIMAGE)
    failed = [dataclasses.replace(charge, attempt=1) for charge in ledger.charges[:1]]
    ledger.charges = [*failed, *ledger.charges]
    add(store, PRIVIMAGE, ledger, 45.0)
    findings = check_store(store)
    assert any(
        f"1 attempt at it failed after a release: all together spent ε = {ledger.spent():.6g}" in line
        for line in findings
    )
    assert any("spent of a budget of 1" in line for line in findings)


def test_failed_cells_that_had_released_something_are_counted_together(store: Store) -> None:
    cells = [Cell(task="8", method="dp_sgd", epsilon=1.0, options=OPTIONS, seed=seed) for seed in (7, 8, 9)]
    for cell in cells:
        ledger = declared(cell)
        if cell.seed == 9:  # this one failed before it drew anything
            ledger.charges = []
        add(store, cell, ledger, 0.0, status="failed", error="ValueError")
    (found,) = check_store(store)
    assert "dp_sgd on 8 (n = 128): 2 failed cells failed after a release" in found
    both = [charge.mechanism.event() for _ in range(2) for charge in declared(cells[0]).charges]
    assert f"together they spent ε = {epsilon_of(both, 1e-5, Relation.ADD_OR_REMOVE_ONE):.6g}" in found


def test_parameters_without_a_ledger_are_found(store: Store) -> None:
    folder = store.directory("0123")
    folder.mkdir()
    assert check_store(store) == []
    (folder / "theta.safetensors").touch()
    (found,) = check_store(store)
    assert "cell 0123: it has parameters and no ledger.json" in found


def test_several_settings_on_one_private_task_are_found_and_on_a_tuning_task_are_not(store: Store) -> None:
    cell = Cell(task="8", method="dp_sgd", epsilon=1.0, options={**OPTIONS, "steps": 4}, seed=0)
    add(store, cell, declared(cell), 40.0)
    (found,) = check_store(store)
    assert "dp_sgd at ε = 1 on 8 (n = 128, k = 32): 2 settings ran on this private task" in found
    assert "steps = 4" in found
    assert "l2_clip_norm" not in found  # which they share
    for seed in range(3):
        for options in (OPTIONS, {**OPTIONS, "steps": 4}):
            path = store.directory(Cell(task="8", method="dp_sgd", epsilon=1.0, options=options, seed=seed).id)
            if path.exists():
                in_row(split="tuning")(path)
    assert check_store(store) == []


def test_a_private_number_beyond_the_ceiling_is_found(store: Store) -> None:
    for seed in range(3):
        cell = Cell(task="8", method="hypernetwork", epsilon=8.0, seed=seed)
        in_row(metrics={"frechet": 0.1 * seed})(store.directory(cell.id))
    (finding,) = check_store(store)
    assert "hypernetwork at ε = 8 on 8 (n = 128)" in finding
    assert "beats the non-private ceiling" in finding


def test_a_private_number_beyond_the_ceiling_within_chance_is_not(store: Store) -> None:
    for seed in range(3):
        cell = Cell(task="8", method="hypernetwork", epsilon=8.0, seed=seed)
        in_row(metrics={"frechet": 10.5 + 0.5 * seed})(store.directory(cell.id))
    assert check_store(store) == []


def test_reproducible_rows_that_do_not_claim_privacy_pass(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cell = Cell(task="8", method="hypernetwork", reproducible_noise=True)
    ledger = run(cell, OneShotMean(), NoiseSource.reproducible(0))
    add(store, cell, ledger, 3.0)
    assert check_store(store) == []
    in_row(private=True)(store.directory(cell.id))
    (finding,) = check_store(store)
    assert "drawn from a seed" in finding


def test_every_key_of_a_ledger_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text()
    plain = run(Cell(task="8"), gradients()).to_json()
    charge = plain["charges"][0]
    keys = {*plain, *plain["budget"], *plain["noise"], *charge, *charge["mechanism"], "count_weight", "of"}
    tuned = run(Cell(task="8"), TRIALS).to_json()["charges"][0]
    keys |= {*tuned["mechanism"], *tuned["event"]}
    missing = [key for key in keys if not any(form in page for form in (f"`{key}`", f"`{key}.", f".{key}`"))]
    assert missing == []
