"""Mechanisms and events come back from JSON as they went."""

import json
import math

import dp_accounting
import pytest

from dphyper.core.errors import UserError
from dphyper.privacy.json_form import event_from_json, event_json, mechanism_from_json, mechanism_json
from dphyper.privacy.mechanisms import BestOfTrials, Mechanism, NoisyHistogram, OneShotMean, PoissonGradientSteps

GRADIENTS = PoissonGradientSteps(l2_clip_norm=0.1, sampling_prob=1 / 3, steps=7, noise_multiplier=2.5)
HISTOGRAM = NoisyHistogram(noise_multiplier=9.0)
MECHANISMS: list[Mechanism] = [
    GRADIENTS,
    HISTOGRAM,
    OneShotMean(l2_clip_norm=math.inf, noise_multiplier=0.0),
    BestOfTrials(trial=(GRADIENTS, HISTOGRAM), mean_trials=10.0, shape=math.inf, noise_ratios=(1.0, 0.5)),
    BestOfTrials(trial=(HISTOGRAM,), mean_trials=2.5, shape=0.0),
]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_mechanisms_and_events_survive_json(mechanism: Mechanism) -> None:
    plain = json.loads(json.dumps(mechanism_json(mechanism), allow_nan=False))
    assert mechanism_from_json(plain) == mechanism
    event = json.loads(json.dumps(event_json(mechanism.event()), allow_nan=False))
    assert event_from_json(event) == mechanism.event()
    others = [other for other in MECHANISMS if other != mechanism]
    assert mechanism_from_json(plain) not in others
    assert event_from_json(event) not in [other.event() for other in others]


def test_compositions_survive_json_in_their_order() -> None:
    events = [mechanism.event() for mechanism in MECHANISMS]
    plain = event_json(dp_accounting.ComposedDpEvent(events))
    assert event_from_json(plain) == dp_accounting.ComposedDpEvent(events)
    assert event_from_json(plain) != dp_accounting.ComposedDpEvent(events[::-1])


def test_a_wrong_value_is_refused_when_it_is_read() -> None:
    with pytest.raises(UserError, match=r"noise_multiplier = -1\.0"):
        mechanism_from_json(mechanism_json(HISTOGRAM) | {"noise_multiplier": -1.0})
