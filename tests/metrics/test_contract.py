"""The contract of every registered metric."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dphyper.bench.store import Row
from dphyper.core.errors import UserError
from dphyper.metrics.extractors import NETWORKS
from dphyper.metrics.metric import METRICS, Evidence, Metric

RNG = np.random.default_rng(0)


def evidence(shift: float = 0.0, kind: type[np.floating] = np.float64) -> Evidence:
    """Of 60 generated and 80 reference records; ``shift`` makes everything about the generated ones worse."""
    rng = np.random.default_rng(0)
    return Evidence(
        generated=rng.integers(0, 256, (60, 8, 8, 1), np.uint8),
        reference=rng.integers(0, 256, (80, 8, 8, 1), np.uint8),
        generated_features=(rng.standard_normal((60, 6)) + shift).astype(kind),
        reference_features=rng.standard_normal((80, 6)).astype(kind),
        private_features=np.random.default_rng(1).standard_normal((40, 6)).astype(kind),
        reference_losses=(rng.uniform(0.1, 0.2, 80) + shift).astype(kind),
    )


def is_a_finite_number(metric: type[Metric]) -> None:
    assert np.isfinite(metric.compute(evidence()))


def is_worse_where_everything_is(metric: type[Metric]) -> None:
    better, worse = metric.compute(evidence()), metric.compute(evidence(shift=2.0))
    assert (worse < better) if metric.higher_is_better else (worse > better)


def is_not_random(metric: type[Metric]) -> None:
    assert metric.compute(evidence()) == metric.compute(evidence())


def takes_float32(metric: type[Metric]) -> None:
    assert metric.compute(evidence(kind=np.float32)) == pytest.approx(metric.compute(evidence()), rel=1e-3, abs=1e-3)


def has_a_name_for_every_extractor(metric: type[Metric]) -> None:
    assert all(metric.label_on(extractor) for extractor in NETWORKS)


def rejects_features_without_a_distance(metric: type[Metric]) -> None:
    if "features" not in metric.needs:
        return
    good: NDArray[np.float64] = RNG.standard_normal((10, 4))
    for bad in (good[:1], good[:, :3], good[0], np.zeros((0, 4))):
        with pytest.raises(UserError, match=r"expected \(N, d\) and \(M, d\)"):
            metric.compute(Evidence(generated_features=bad, reference_features=good))
    with pytest.raises(UserError, match="NaN or infinite"):
        metric.compute(Evidence(generated_features=np.where(good > 1, np.nan, good), reference_features=good))


CHECKS: tuple[Callable[[type[Metric]], None], ...] = (
    is_a_finite_number,
    is_worse_where_everything_is,
    is_not_random,
    takes_float32,
    has_a_name_for_every_extractor,
    rejects_features_without_a_distance,
)


@pytest.mark.parametrize("name", sorted(METRICS))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(name: str, check: Callable[[type[Metric]], None]) -> None:
    check(METRICS[name])


def test_number_of_checks() -> None:
    assert len(CHECKS) * len(METRICS) >= 6 * 3, "the contract suite lost checks or metrics"


def test_names_are_no_columns_of_a_row() -> None:
    assert not {*METRICS, *(f"real_{name}" for name in METRICS)} & {*Row.__annotations__}


def test_the_contract_catches_a_metric_of_the_wrong_direction() -> None:
    class Flipped(METRICS["frechet"]):  # type: ignore[misc]
        higher_is_better = True

    with pytest.raises(AssertionError):
        is_worse_where_everything_is(Flipped)


def test_asking_a_metric_for_its_name_loads_no_torch() -> None:
    code = (
        "import sys; from dphyper.metrics.metric import METRICS; "
        "assert [METRICS[name].label_on('inception') for name in METRICS]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
