"""The instruments of the contract suite."""

import torch

from dphyper.audits.watching import EqualDraws, Tape, equal_numbers
from dphyper.privacy import private_data
from dphyper.privacy.budget import Relation
from dphyper.privacy.mechanisms import OneShotMean
from dphyper.privacy.noise import NoiseSource


def test_draws_of_a_watched_batch_are_those_of_its_first_record() -> None:
    rng = torch.Generator().manual_seed(0)
    with EqualDraws(4, rng):
        shared = torch.randn(8, 3, generator=rng)
        other = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shared[:2], shared[6:])
    assert torch.equal(shared[:2], other[:2])
    assert not torch.equal(other[:2], other[6:])


def test_a_tape_plays_the_sums_that_it_recorded() -> None:
    def total(value: float) -> torch.Tensor:
        mechanism, noise = OneShotMean(noise_multiplier=1.0, l2_clip_norm=9.0), NoiseSource.os()
        rows = torch.full((1, 2), value)
        return private_data.noisy_sum([rows], 2, mechanism=mechanism, relation=Relation.ZERO_OUT, noise=noise)

    tape = Tape()
    with tape.recording():
        recorded = total(1.0)
    with tape.playing(deaf=True):
        assert torch.equal(total(5.0), recorded)
    assert not torch.equal(total(1.0), recorded)


def test_equal_numbers_are_equal_also_where_they_are_none() -> None:
    nan = torch.tensor([1.0, torch.nan])
    assert equal_numbers(nan, nan.clone())
    assert not equal_numbers(nan, torch.tensor([1.0, 2.0]))
    assert not equal_numbers(nan, nan[:1])
