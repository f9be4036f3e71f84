"""Rows of per-record functions do not hang on the batch that they are computed in."""

import pytest
import torch
from torch import Tensor

from dphyper.core.errors import PrivacyError
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.record_rows import PerRecord, RecordRows


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
