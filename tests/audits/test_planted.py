"""Every planted bug is caught by its guard, or its check, which finds nothing in the sound counterpart."""

import pytest

from dphyper.audits import faulty_methods, guards
from dphyper.audits.planted import Planted, planted_methods, planted_releases, planted_table

# Each bug that was read in published code, and the guard that has to catch it.
EXPECTED = {
    "micro-batches of four": "sensitivity",
    "second moment with half the sensitivity": "sensitivity",
    "realised instead of the expected batch": "sensitivity",
    "C/n of the mean under add-or-remove-one": "sensitivity",
    "augmented four times": "sensitivity",
    "spread evenly over the batch": "noise_scale",
    "seed fixed": "fresh_noise",
    "shuffled batches": "poisson_sampling",
    "noise added before clipping": "noise_scale",
    "no noise": "noise_scale",
    "noise for the sum alone": "noise_scale",
    "count released without noise": "noise_scale",
    "largest of the private norms": "record_wise",
    "batch normalisation": "record_wise",
    "with all its digits": "on_grid",
    "noise drawn in float32": "double_precision",
    "seeded with 16 bits": "fresh_sources",
    "depend on the size of the batch": "batch_sizes",
    "as many trials run as count": "constant_work",
    "taken off the ledger": "failures_cost",
}


@pytest.fixture(scope="module")
def releases() -> list[Planted]:
    return planted_releases()


def test_every_planted_bug_is_caught_by_its_guard(releases: list[Planted]) -> None:
    assert len(releases) == len(EXPECTED)
    for name, guard in EXPECTED.items():
        (found,) = [p for p in releases if name in p.bug]
        assert found.guard == guard
        assert found.finding is not None, f"{guard} missed: {found.bug}"
        assert found.sound is None, f"{guard} rejects the sound release: {found.sound}"


def test_planted_table_has_a_line_for_each(releases: list[Planted]) -> None:
    lines = planted_table(releases).splitlines()
    assert len(lines) == len(EXPECTED)
    assert all(line.startswith("caught") for line in lines)


def test_a_guard_that_sees_nothing_shows_as_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    def noise_scale(*_: object) -> None:
        return None

    monkeypatch.setattr(guards, "noise_scale", noise_scale)
    assert sum(line.startswith("MISSED") for line in planted_table(planted_releases()).splitlines()) == 5


def test_every_faulty_method_is_found_by_its_check_and_the_sound_one_passes() -> None:
    methods = planted_methods()
    assert len(methods) == len(faulty_methods.FAULTY) >= 6
    for found in methods:
        assert found.sound is None
        assert found.finding is not None, f"{found.guard} missed: {found.bug}"
