"""Mechanisms and events as plain data for JSON, and back, in the form that ``docs/ledger.md`` describes.

What goes there and back is equal to what went. The form is not validated when it is read: only the mechanisms check
their own values.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import attr
import dp_accounting

from dphyper.privacy.mechanisms import (
    BestOfTrials,
    GaussianMechanism,
    Mechanism,
    NoisyHistogram,
    OneShotMean,
    PoissonGradientSteps,
)

_KINDS: dict[str, type[GaussianMechanism]] = {
    kind.__name__: kind for kind in (OneShotMean, PoissonGradientSteps, NoisyHistogram)
}


def mechanism_json(mechanism: Mechanism) -> dict[str, Any]:
    """A mechanism as plain data: ``kind`` is its class, other keys its fields; the mechanisms of a trial are nested.

    >>> mechanism_json(NoisyHistogram(noise_multiplier=9.0))
    {'kind': 'NoisyHistogram', 'noise_multiplier': 9.0}
    """
    plain: dict[str, Any] = {"kind": type(mechanism).__name__}
    for field in dataclasses.fields(mechanism):  # type: ignore[arg-type]
        value = getattr(mechanism, field.name)
        plain[field.name] = [mechanism_json(part) for part in value] if field.name == "trial" else plain_value(value)
    return plain


def mechanism_from_json(plain: Mapping[str, Any]) -> Mechanism:
    """Inverse of `mechanism_json`.

    >>> trials = BestOfTrials(trial=(NoisyHistogram(noise_multiplier=9.0),), mean_trials=10.0)
    >>> mechanism_from_json(mechanism_json(trials)) == trials
    True
    """
    fields = {name: _from_plain(value) for name, value in plain.items() if name not in ("kind", "trial")}
    if plain["kind"] != BestOfTrials.__name__:
        return _KINDS[plain["kind"]](**fields)
    fields["noise_ratios"] = tuple(fields["noise_ratios"])
    trial: Any = tuple(mechanism_from_json(part) for part in plain["trial"])
    return BestOfTrials(trial=trial, **fields)


def event_json(event: dp_accounting.DpEvent) -> dict[str, Any]:
    """A `dp_accounting` event as plain data: ``kind`` is its class, ``of`` the event or the list of events inside.

    >>> event_json(dp_accounting.PoissonSampledDpEvent(0.25, dp_accounting.GaussianDpEvent(2.0)))["of"]
    {'kind': 'GaussianDpEvent', 'noise_multiplier': 2.0}
    """
    plain: dict[str, Any] = {"kind": type(event).__name__}
    for name in attr.fields_dict(type(event)):
        value = getattr(event, name)
        if isinstance(value, dp_accounting.DpEvent):
            plain["of"] = event_json(value)
        elif isinstance(event, dp_accounting.ComposedDpEvent):
            plain["of"] = [event_json(inner) for inner in value]
        else:
            plain[name] = plain_value(value)
    return plain


def event_from_json(plain: Mapping[str, Any]) -> dp_accounting.DpEvent:
    """Inverse of `event_json` for the events that mechanisms emit."""
    fields = {key: _from_plain(value) for key, value in plain.items() if key not in ("kind", "of")}
    inner = plain.get("of")
    if isinstance(inner, list):
        fields["events"] = [event_from_json(event) for event in inner]
    elif inner is not None:
        fields["event"] = event_from_json(inner)
    return getattr(dp_accounting.dp_event, plain["kind"])(**fields)


def plain_value(value: Any) -> Any:
    """Numbers, tuples and dictionaries of them as JSON holds them: tuples become lists, ∞ becomes ``"inf"``.

    >>> plain_value({"epsilon": math.inf, "noise_std": (1.0, 2.0)})
    {'epsilon': 'inf', 'noise_std': [1.0, 2.0]}
    """
    if isinstance(value, dict):
        return {key: plain_value(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [plain_value(inner) for inner in value]
    return "inf" if value == math.inf else value


def _from_plain(plain: Any) -> Any:
    """Inverse of `plain_value` for a number."""
    return math.inf if plain == "inf" else plain
