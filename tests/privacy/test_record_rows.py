"""Rows of per-record functions, where there is no privacy and where the function is wrong."""

import pytest
import torch
from torch import Tensor

from dphyper.core.errors import PrivacyError, UserError
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.record_rows import PerRecord, RecordRows, rows_of


def rows(fn: PerRecord, slots: int = 8, *, exact: bool = True) -> RecordRows:
    return RecordRows(fn, torch.zeros(1, 5), slots, NoiseSource.reproducible(0), "test", exact=exact)


def test_batches_are_filled_up_only_where_there_is_privacy() -> None:
    for exact, expected in ((True, {8}), (False, {8, 3})):
        sizes: set[int] = set()

        def watched(x: Tensor, rng: torch.Generator, sizes: set[int] = sizes) -> Tensor:
            sizes.add(len(x))
            return x

        records = torch.rand(19, 5, generator=torch.Generator().manual_seed(0))
        batches = [*rows(watched, exact=exact)(records)]
        assert torch.equal(torch.cat(batches), records)
        assert sizes == expected


def test_joint_functions_are_refused_only_where_there_is_privacy() -> None:
    def joint(x: Tensor, rng: torch.Generator) -> Tensor:
        return x - x.mean(0)

    with pytest.raises(PrivacyError, match="role 'test': a record's row moves by"):
        rows(joint, exact=True)
    assert rows(joint, exact=False).slots == 8
    assert rows(joint, exact=True, slots=1).slots == 1  # a batch of one record has no other


def test_values_that_are_no_numbers_are_compared_like_numbers() -> None:
    def spoil(x: Tensor, rng: torch.Generator) -> Tensor:
        return torch.where(x > 0, torch.nan, torch.inf)

    def spoil_all(x: Tensor, rng: torch.Generator) -> Tensor:
        return x * torch.where(x.abs().max() > 1, torch.nan, 1.0)

    assert rows(spoil, exact=True).slots == 8
    with pytest.raises(PrivacyError, match="must treat records one by one"):
        rows(spoil_all, exact=True)


def test_a_function_gives_one_row_for_each_record() -> None:
    records, rng = torch.ones(3, 5, requires_grad=True), torch.Generator()
    assert not rows_of(lambda x, rng: 2 * x, records, rng, "a").requires_grad
    assert rows_of(lambda x, rng: x[:, :0], records, rng, "a").shape == (3, 0)
    for wrong in (lambda x, rng: x.sum(), lambda x, rng: x[1:], lambda x, rng: x[:, 0], lambda x, rng: x[None]):
        with pytest.raises(UserError, match=r"role 'a': a per-record function gave shape .* expected one row each"):
            rows_of(wrong, records, rng, "a")


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
