"""What the accountants read of an event, and which events they refuse."""

import dp_accounting
import pytest

from dphyper.core.errors import PrivacyError
from dphyper.privacy.accounting import epsilon_of
from dphyper.privacy.budget import Relation
from dphyper.privacy.mechanisms import BestOfTrials, NoisyHistogram, PoissonGradientSteps
from dphyper.privacy.normal_form import Selection, normal_form


def votes(sigma: float) -> NoisyHistogram:
    return NoisyHistogram(noise_multiplier=sigma)


def test_neither_nesting_nor_order_counts() -> None:
    gradients = PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=0.5, steps=3, noise_multiplier=2.0).event()
    single = dp_accounting.PoissonSampledDpEvent(0.5, dp_accounting.GaussianDpEvent(2.0))
    selection = BestOfTrials(trial=(votes(9.0),), mean_trials=10.0, shape=0.5).event()
    events = [selection, gradients, votes(4.0).event(), dp_accounting.NoOpDpEvent(), selection]
    apart = [votes(4.0).event(), single, dp_accounting.ComposedDpEvent([selection, single]), single, selection]
    expected = (((0.5, 2.0, 3), (1.0, 4.0, 1)), ((Selection(((1.0, 9.0, 1),), 10.0, 0.5), 2),))
    assert normal_form(dp_accounting.ComposedDpEvent(events)) == expected
    assert normal_form(dp_accounting.ComposedDpEvent(apart)) == expected
    assert normal_form(dp_accounting.ComposedDpEvent(apart[1:])) != expected


def test_what_has_no_noise_has_no_normal_form() -> None:
    for clear in (dp_accounting.NonPrivateDpEvent(), dp_accounting.GaussianDpEvent(0.0)):
        composed = dp_accounting.ComposedDpEvent([votes(4.0).event(), clear])
        assert normal_form(composed) is None
        assert normal_form(dp_accounting.dp_event.RepeatAndSelectDpEvent(composed, 3.0, 1.0)) is None
    assert normal_form(dp_accounting.ComposedDpEvent([])) == ((), ())


def test_unknown_events_are_refused() -> None:
    with pytest.raises(PrivacyError, match="no accountant here"):
        epsilon_of(dp_accounting.LaplaceDpEvent(1.0), 1e-5, Relation.ADD_OR_REMOVE_ONE)
    sampled = dp_accounting.SampledWithoutReplacementDpEvent(100, 10, dp_accounting.GaussianDpEvent(1.0))
    with pytest.raises(PrivacyError, match="no accountant here"):
        epsilon_of(sampled, 1e-5, Relation.REPLACE_ONE)


def test_a_selection_inside_a_selection_is_refused() -> None:
    inner = BestOfTrials(trial=(votes(9.0),), mean_trials=10.0)
    nested = dp_accounting.dp_event.RepeatAndSelectDpEvent(inner.event(), 3.0, 1.0)
    with pytest.raises(PrivacyError, match="no accountant here"):
        epsilon_of(nested, 1e-5, Relation.ZERO_OUT)
