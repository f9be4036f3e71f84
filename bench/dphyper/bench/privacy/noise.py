"""Noise and sampling randomness for the private mechanisms.

By default every bit comes from the operating system's cryptographic generator: nobody who knows the code, the
seed and the output can recompute the noise. A reproducible source exists for tests alone; it says so in an
attribute, and whatever is drawn from it must be marked as not private.

The continuous sampler inverts the normal distribution function at 64 random bits in float64. As every
floating-point sampler it has holes in its low bits, which an adversary who sees all digits of the output can
exploit in principle (Mironov 2012; Jin et al. 2022, arXiv:2112.05307). The ``secure`` mode closes that hole: the
sum is an integer multiple of a grid already, and the noise is an exact discrete Gaussian on this grid (Canonne,
Kamath & Steinke 2020, arXiv:2004.00010) from OpenDP's sampler. Neither mode defends against timing.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from dphyper.bench.errors import UserError

# Where torch keeps the key of a CPU generator's Mersenne Twister in its state: after seed, counters and position.
_TWISTER_KEY, _TWISTER_WORDS = 24, 624


class NoiseSource:
    """A stream of random bytes, read as uniform and Gaussian numbers. Build it by `os`, or by `reproducible` in tests.

    Attributes:
        is_reproducible: True if the stream can be computed again: then nothing drawn from it protects anybody.
        secure: True if `discrete_gaussian` is to be used for the noise.
    """

    def __init__(self, stream: Callable[[int], bytes], *, is_reproducible: bool, secure: bool = False) -> None:
        self._stream = stream
        self.is_reproducible = is_reproducible
        self.secure = secure

    @classmethod
    def os(cls, *, secure: bool = False) -> "NoiseSource":
        """The operating system's entropy.

        Args:
            secure: Discrete noise on a grid. Needs the extra ``secure`` (OpenDP); about 10 µs a number.

        Raises:
            UserError: ``secure`` without OpenDP installed.
        """
        if secure:
            _opendp()
        return cls(os.urandom, is_reproducible=False, secure=secure)

    @classmethod
    def reproducible(cls, seed: int) -> "NoiseSource":
        """A stream fixed by ``seed``, through the same code. For tests only: it gives no privacy."""
        return cls(np.random.default_rng(seed).bytes, is_reproducible=True)

    def uniform(self, shape: int | tuple[int, ...]) -> NDArray[np.float64]:
        """Numbers uniform on the multiples of 2⁻⁵³ in [0, 1), so that P(u < q) is q to 2⁻⁵³ and 1 for q = 1."""
        return (self._words(shape) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def gaussian(self, shape: int | tuple[int, ...], std: float) -> NDArray[np.float64]:
        """Independent float64 N(0, std²) numbers; ``std`` is a standard deviation, at least 0.

        One bit of each 64-bit word is the sign, the other 63 the tail probability in (0, 1/2), so that the
        resolution is finest in the tails, which reach 9.1 standard deviations.

        >>> x = NoiseSource.reproducible(0).gaussian(100_000, std=2.0)
        >>> round(float(x.std()), 2)
        2.0
        """
        words = self._words(shape)
        tail = ((words >> np.uint64(1)).astype(np.float64) + 0.5) * 2.0**-64
        sign = 1.0 - 2.0 * (words & np.uint64(1)).astype(np.float64)
        return np.asarray(sign * std * ndtri(tail), dtype=np.float64)

    def generator(self) -> torch.Generator:
        """A torch generator whose whole state comes from the stream, for the randomness of private losses.

        It hides which times and noises a loss met; the noise that protects records never comes from it. The state is
        written word by word because torch's own seeding keeps 32 bits, which an attacker who knows all other records
        could try one after the other. A Mersenne Twister is no cipher: its numbers must stay inside the losses.
        """
        generator = torch.Generator().manual_seed(0)
        state = generator.get_state()
        words = self._words(_TWISTER_WORDS) >> np.uint64(32)
        state[_TWISTER_KEY : _TWISTER_KEY + words.nbytes] = torch.from_numpy(words.view(np.uint8))
        return generator.set_state(state)

    def discrete_gaussian(self, shape: int | tuple[int, ...], std: float) -> NDArray[np.int64]:
        """Independent integers with probability proportional to exp(-x² / 2 std²), exactly, by OpenDP.

        Args:
            shape: Shape of the result.
            std: The parameter, in integer steps, above 0 and below 2⁵⁸; above 1 it is the standard deviation.

        Raises:
            UserError: OpenDP is not installed, or ``std`` is outside its range.
        """
        if not 0 < std < 2.0**58:
            raise UserError(f"std = {std:g} grid steps: the discrete Gaussian takes values above 0 and below 2^58")
        dp = _opendp()
        space = dp.vector_domain(dp.atom_domain(T=dp.i64)), dp.l2_distance(T=float)
        draw = dp.m.make_gaussian(*space, std)
        return np.array(draw([0] * math.prod(np.atleast_1d(shape).tolist())), dtype=np.int64).reshape(shape)

    def _words(self, shape: int | tuple[int, ...]) -> NDArray[np.uint64]:
        count = math.prod(np.atleast_1d(shape).tolist())
        return np.frombuffer(self._stream(8 * count), dtype=np.uint64).reshape(shape)


def _opendp() -> Any:
    try:
        import opendp.prelude as dp
    except ImportError as error:
        raise UserError(
            "secure noise needs OpenDP: install the extra `secure` (pip install 'dphyper[secure]')"
        ) from error
    dp.enable_features("contrib")
    return dp
