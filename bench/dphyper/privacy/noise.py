"""Noise and sampling randomness for the private mechanisms.

By default every bit comes from the operating system's cryptographic generator: nobody who knows the code, the seed and
the output can recompute the noise. A reproducible source exists for tests alone. It says so in an attribute, and
whatever is drawn from it must be marked as not private.

Noise is drawn as integers only, in steps of a grid on which the sum lies too. `rounded_gaussian` returns real Gaussian
numbers rounded to the nearest integer, with exactly their distribution. A sum of integers plus such noise is therefore
the exact sum plus an exact Gaussian, rounded afterwards: post-processing of the Gaussian mechanism of the textbook. The
digits of a floating-point sampler tell the sum from the noise (Mironov 2012; Jin et al. 2022, arXiv:2112.05307); no
release shows any.

One thing is assumed, and proved by no theorem: `scipy.special.ndtri` errs by at most 2⁻⁴⁵ (1 + |x|). That is 32
times the largest error that `tests/privacy/test_noise.py` allows. Nothing here defends against timing.
"""

import math
import os
from collections.abc import Callable

import mpmath
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from dphyper.core.errors import PrivacyError

# In the state of torch's CPU generator, the 624 words of the Mersenne Twister's key begin at byte 24: after the seed,
# the counters and the position.
_TWISTER_KEY, _TWISTER_WORDS = 24, 624
# Most digits that are drawn for one number. A fair source needs more with a probability of 2⁻²⁰⁰.
MOST_BITS = 256
# 63 bits give the tail probability to 2⁻⁶⁴. For tails below 2⁻¹⁸ that is too coarse to round by. For others it moves x
# by less than 2⁻⁴⁵ (1 + |x|). The error of `ndtri` moves x by no more, so the margin is the sum of both.
_COARSE_TAIL, _MARGIN = 2.0**-18, 2.0**-44


class NoiseSource:
    """A stream of random bytes, read as uniform and Gaussian numbers. Build it by `os`, or by `reproducible` in tests.

    Attributes:
        is_reproducible: Whether the stream can be computed again. If so, nothing drawn from it protects anybody.
    """

    def __init__(self, stream: Callable[[int], bytes], *, is_reproducible: bool) -> None:
        self._stream = stream
        self.is_reproducible = is_reproducible

    @classmethod
    def os(cls) -> "NoiseSource":
        """The operating system's entropy."""
        return cls(os.urandom, is_reproducible=False)

    @classmethod
    def reproducible(cls, seed: int) -> "NoiseSource":
        """A stream that ``seed`` fixes, read by the same code. For tests only: it gives no privacy."""
        return cls(np.random.default_rng(seed).bytes, is_reproducible=True)

    def uniform(self, shape: int | tuple[int, ...]) -> NDArray[np.float64]:
        """Numbers uniform on the multiples of 2⁻⁵³ in [0, 1): P(u < q) is within 2⁻⁵³ of q, and 1 for q = 1."""
        return (self._words(shape) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def rounded_gaussian(self, shape: int | tuple[int, ...], std: float) -> NDArray[np.int64]:
        """Independent integers, each the nearest to an exact N(0, std²) number.

        One bit of a 64-bit word is the sign. The other 63 begin the binary digits of the tail probability. About once
        in 100,000 numbers these do not settle which integer is the nearest; then further digits are drawn until they
        do, and computed with as many digits as it takes.

        Args:
            shape: Shape of the result.
            std: Standard deviation in steps, at least 0 and at most 2⁴⁰.

        >>> x = NoiseSource.reproducible(0).rounded_gaussian(100_000, std=2.0)
        >>> round(float(x.std()), 2)  # √(2² + 1/12)
        2.02
        """
        assert 0 <= std <= 2.0**40, f"std = {std}: no grid is so fine"
        words = self._words(shape).ravel()
        digits = words >> np.uint64(1)
        tail = (digits.astype(np.float64) + 0.5) * 2.0**-64
        x = -ndtri(tail)
        y = x * std
        nearest = np.rint(y)
        unsettled = (tail < _COARSE_TAIL) | (np.abs(np.abs(y - nearest) - 0.5) <= _MARGIN * (1 + x) * std)
        integers = nearest.astype(np.int64)
        for index in np.flatnonzero(unsettled):
            integers[index] = self._round_exactly(int(digits[index]), std)
        sign = 1 - 2 * (words & np.uint64(1)).astype(np.int64)
        return np.asarray(sign * integers).reshape(shape)

    def _round_exactly(self, digits: int, std: float) -> int:
        """The integer nearest to std·|Z|, where the tail probability of |Z| begins with a 0 and these 63 digits."""
        bits = 64
        while True:
            with mpmath.workprec(3 * bits):
                # The greater end of the tail probability comes first: it belongs to the smaller number.
                ends = [
                    std * mpmath.sqrt(2) * mpmath.erfinv(1 - mpmath.mpf(end) / 2 ** (bits - 1)) if end else mpmath.inf
                    for end in (digits + 1, digits)
                ]
                if mpmath.isfinite(ends[1]):
                    low, high = (int(mpmath.floor(end + mpmath.mpf(0.5))) for end in ends)
                    if low == high:
                        return low
            digits = digits << 64 | int(self._words(1)[0])
            bits += 64
            if bits > MOST_BITS:
                raise PrivacyError(f"the source of noise gave the same bit {bits} times: it is not random")

    def generator(self) -> torch.Generator:
        """A torch generator whose whole state comes from the stream, for the randomness of private losses.

        It keeps the times and noises of a loss secret; the noise that protects records never comes from it. The state
        is written word by word because torch's own seeding keeps 32 bits only, and an attacker who knows all other
        records could try them all. A Mersenne Twister is no cipher: its numbers must stay inside the losses.
        """
        generator = torch.Generator().manual_seed(0)
        state = generator.get_state()
        words = self._words(_TWISTER_WORDS) >> np.uint64(32)
        state[_TWISTER_KEY : _TWISTER_KEY + words.nbytes] = torch.from_numpy(words.view(np.uint8))
        return generator.set_state(state)

    def _words(self, shape: int | tuple[int, ...]) -> NDArray[np.uint64]:
        count = math.prod(np.atleast_1d(shape).tolist())
        return np.frombuffer(self._stream(8 * count), dtype=np.uint64).reshape(shape)
