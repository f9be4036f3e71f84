"""The Fréchet distance against torchmetrics, clean-fid and a formula; where clean-fid finds none; its names."""

import importlib.metadata
import itertools

import cleanfid.fid
import numpy as np
import pytest
import scipy
import scipy.linalg
import torch
from numpy.typing import NDArray
from torchmetrics.image.fid import _compute_fid

from dphyper.metrics.extractors import NETWORKS
from dphyper.metrics.frechet import Frechet, _distance_by_eigenvalues
from dphyper.metrics.metric import Evidence


def random_features(n: int, d: int, seed: int, shift: float = 0.0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((d, d)) / np.sqrt(d)
    return np.maximum(rng.standard_normal((n, d)) @ mixing + shift, 0)


def frechet_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    return Frechet.compute(Evidence(generated_features=first, reference_features=second))


def test_scipy_still_has_the_argument_clean_fid_passes():
    try:
        scipy.linalg.sqrtm(np.eye(2), disp=False)
    except TypeError:
        pytest.fail(
            f"scipy {scipy.__version__} has no sqrtm(disp=...), which clean-fid "
            f"{importlib.metadata.version('clean-fid')} calls: install scipy below 1.18"
        )


@pytest.mark.parametrize(("n", "m", "d"), [(300, 400, 16), (500, 900, 64), (40, 60, 64)])
def test_distance_equals_torchmetrics(n, m, d):
    first, second = random_features(n, d, 0), random_features(m, d, 1, shift=0.3)
    moments = [torch.from_numpy(v) for x in (first, second) for v in (x.mean(0), np.cov(x, rowvar=False))]
    assert frechet_distance(first, second) == pytest.approx(float(_compute_fid(*moments)), rel=1e-4)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-6)


def test_distance_of_equal_features_is_zero():
    features = random_features(500, 32, 0)
    assert frechet_distance(features, features[::-1]) == pytest.approx(0, abs=1e-6)


def test_distance_of_known_gaussians():
    # Orthogonal designs have exactly the covariance 4/3 I; scaling by 3 makes it 12 I.
    cube = np.array(list(itertools.product([-1.0, 1.0], repeat=2)))
    assert frechet_distance(cube, 3 * cube + 5) == pytest.approx(2 * 25 + 2 * 4 / 3 * (3 - 1) ** 2)


def test_eigenvalues_agree_with_clean_fid_where_both_work():
    first, second = random_features(400, 24, 0), random_features(600, 24, 1, shift=0.2)
    moments = (first.mean(0), np.cov(first, rowvar=False), second.mean(0), np.cov(second, rowvar=False))
    assert _distance_by_eigenvalues(*moments) == pytest.approx(cleanfid.fid.frechet_distance(*moments), rel=1e-9)


def test_distance_where_clean_fid_finds_none():
    # Fewer images than dimensions and large values: the root of the product comes out complex.
    first, second = random_features(50, 320, 0), random_features(60, 320, 1)
    with pytest.raises(ValueError, match="Imaginary component"):
        cleanfid.fid.fid_from_feats(1e4 * first, 1e4 * second)
    assert frechet_distance(1e4 * first, 1e4 * second) == pytest.approx(1e8 * frechet_distance(first, second), rel=1e-4)


def test_distance_is_silent(capsys, recwarn):
    frechet_distance(random_features(2, 40, 0), random_features(2, 40, 1))
    assert capsys.readouterr().out == ""
    assert not recwarn.list


def test_only_inception_features_give_a_fid():
    labels = [Frechet.label_on(name) for name in NETWORKS]
    assert Frechet.label_on("inception") == "FID"
    assert labels.count("FID") == 1
    assert len(set(labels)) == len(labels)
    assert Frechet.label_on("of_an_outside_package") == "Fréchet distance"
