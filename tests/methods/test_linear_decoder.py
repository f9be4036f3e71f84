"""The linear decoder is the posterior mean of a Gaussian model whose moments are known."""

import numpy as np
import torch

from dphyper.methods.linear_decoder import LinearDecoder


def test_decoder_is_the_posterior_mean() -> None:
    """Tasks and records from a known Gaussian model, against the textbook formula with its true moments."""
    rng = np.random.default_rng(0)
    mix, shift = rng.normal(size=(3, 3)), rng.normal(size=3)
    a_Tk = rng.normal(size=(20_000, 3))
    codes = (a_Tk @ mix.T + shift)[:, None] + 0.7 * rng.normal(size=(20_000, 4, 3))
    decoder = LinearDecoder(3)
    decoder.fit(torch.from_numpy(codes).float(), torch.from_numpy(a_Tk).float())
    z, noise, n = shift + np.array([0.5, -1.0, 0.3]), 0.3, 20
    wanted = mix.T @ np.linalg.solve(mix @ mix.T + (noise**2 + 0.49 / n) * np.eye(3), z - shift)
    np.testing.assert_allclose(decoder(torch.from_numpy(z).float(), noise, n).numpy(), wanted, atol=0.05)
    assert np.abs(np.linalg.solve(mix, z - shift) - wanted).max() > 0.1
