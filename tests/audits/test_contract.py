"""The contract suite finds every planted fault, also in an outside package, and none where there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dphyper.audits import contract, faulty_methods
from dphyper.audits.planted import Planted, planted_methods
from dphyper.core.errors import PrivacyError
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.record_rows import PerRecord, RecordRows


@pytest.fixture(scope="module")
def planted() -> list[Planted]:
    return planted_methods()


def test_every_faulty_method_is_found_by_its_check_and_the_sound_one_passes(planted: list[Planted]) -> None:
    assert len(planted) == len(faulty_methods.FAULTY) >= 6
    for found in planted:
        assert found.sound is None
        assert found.finding is not None, f"{found.guard} missed: {found.bug}"


def test_an_outside_package_goes_through_the_suite(tmp_path: Path) -> None:
    """As a stranger's: a module and entry points on the path, nothing registered here."""
    (tmp_path / "rogue.py").write_text(
        "from dphyper.audits.faulty_methods import MeanPicture, MixesTheExactMean, DrawsGlobally\n"
        "class Honest(MeanPicture):\n    '''An honest method.'''\n"
        "class Rogue(MixesTheExactMean):\n    '''A method that mixes the exact mean in.'''\n"
        "class Careless(DrawsGlobally):\n    '''A method that draws from the global generator.'''\n"
    )
    info = tmp_path / "rogue-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rogue\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[dphyper.methods]\nhonest = rogue:Honest\nrogue = rogue:Rogue\ncareless = rogue:Careless\n"
    )
    program = (
        "from dphyper.audits.contract import findings\n"
        "for name in ('honest', 'rogue', 'careless'): print(name, [line.split(':')[0] for line in findings(name)])"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "honest []"
    assert done.stdout.splitlines()[1].startswith("rogue ['released_alone'")
    assert "record_wise" in done.stdout.splitlines()[2]


# --- rows of per-record functions


def rows(fn: PerRecord, slots: int = 8) -> RecordRows:
    return RecordRows(fn, torch.zeros(1, 5), slots, NoiseSource.reproducible(0), "test", exact=True)


def by_size(x: Tensor, rng: torch.Generator) -> Tensor:
    """A kernel that sums in another order for large batches."""
    return (x if len(x) < 4 else x.flip(1)).cumsum(1)


def test_a_row_is_the_same_whatever_the_number_of_records() -> None:
    records = torch.rand(40, 5, generator=torch.Generator().manual_seed(0))
    whole = torch.cat([*rows(by_size)(records)])
    for size in (1, 2, 3, 4, 7, 8, 9, 39):
        assert torch.equal(torch.cat([*rows(by_size)(records[:size])]), whole[:size])
    generator = torch.Generator()
    assert not torch.equal(by_size(records[:1], generator), by_size(records, generator)[:1])
    assert [*rows(by_size)(records[:0])] == []


def test_a_function_sees_batches_of_one_size_with_a_generator_of_its_own_each() -> None:
    sizes, states = set(), []

    def watched(x: Tensor, rng: torch.Generator) -> Tensor:
        sizes.add(len(x))
        states.append(rng.get_state().numpy().tobytes())
        return x + torch.rand(x.shape, generator=rng)

    made = rows(watched)
    states.clear()
    assert [len(part) for part in made(torch.ones(19, 5))] == [8, 8, 3]
    assert sizes == {8}
    assert len(set(states)) == 3


def test_rows_that_other_records_move_by_rounding_come_one_by_one_and_by_more_are_refused() -> None:
    def rounded(x: Tensor, rng: torch.Generator) -> Tensor:
        return (x + x.abs().max()) - x.abs().max()

    def by_place(x: Tensor, rng: torch.Generator) -> Tensor:
        return (x + 1) * (1 + 1e-6 * torch.arange(len(x))[:, None])

    assert rows(by_size).slots == 8
    for fn in (lambda x, rng: 1.1 + rounded(x + 0.1, rng), by_place):
        made = rows(fn)
        assert made.slots == 1
        together = torch.cat([*made(torch.ones(3, 5))])
        assert torch.equal(together[0], together[2])
    for joint in (lambda x, rng: x - x.mean(0), lambda x, rng: x.cumsum(0), lambda x, rng: x / x.norm(dim=1).max()):
        with pytest.raises(PrivacyError, match="must treat records one by one"):
            rows(joint)


def test_draws_of_a_watched_batch_are_those_of_its_first_record() -> None:
    rng = torch.Generator().manual_seed(0)
    with contract.EqualDraws(4, rng):
        shared = torch.randn(8, 3, generator=rng)
        other = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shared[:2], shared[6:])
    assert torch.equal(shared[:2], other[:2])
    assert not torch.equal(other[:2], other[6:])
