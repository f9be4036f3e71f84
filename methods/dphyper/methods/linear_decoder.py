"""The best linear guess of a task's coefficients from the noisy mean of its records' codes.

The moments behind the guess come from public tasks alone, and what it reads of a private task was released. It is the
posterior mean where tasks and records are Gaussian, and the best linear guess for given moments otherwise.

Shapes: T tasks, S records of a task, N records of all tasks, k coefficients of a task and numbers of a code.
"""

import torch
from torch import Tensor, nn


class LinearDecoder(nn.Module):
    """Noisy mean codes to coefficients, by the moments of public tasks.

    Over the public tasks, coefficients a (of mean 0) and mean codes z have moments E(z) = m, Cov(z) = S and
    Cov(a, z) = R, and the codes of one task's records have covariance W. From n records and with noise of standard
    deviation τ on each coordinate the guess is R (S + W/n + τ² I)⁻¹ (z − m). It is 0 at infinite noise.
    `dphyper.methods.embedding.Shrinkage` is the same formula without the regression of a on z.
    """

    mean_k: Tensor
    between_kk: Tensor
    within_kk: Tensor
    cross_kk: Tensor

    def __init__(self, num: int) -> None:
        super().__init__()
        self.register_buffer("mean_k", torch.zeros(num))
        for name in ("between_kk", "within_kk", "cross_kk"):
            self.register_buffer(name, torch.eye(num))

    def fit(self, code_TSk: Tensor, coefficient_Tk: Tensor) -> None:
        """Take the moments of public tasks.

        Args:
            code_TSk: Codes of the same number of records of each task, at least 2 tasks of at least 2 records.
            coefficient_Tk: The tasks' coefficients, of mean 0 over all public tasks.
        """
        num, size = code_TSk.shape[:2]
        mean_Tk = code_TSk.mean(1)
        inner_Nk = (code_TSk - mean_Tk[:, None]).flatten(0, 1)
        outer_Tk = mean_Tk - mean_Tk.mean(0)
        centred_Tk = coefficient_Tk - coefficient_Tk.mean(0)
        # These tasks are a sample whose mean coefficients are not quite 0. m is the mean code where they would be.
        slope_kk = torch.linalg.pinv(centred_Tk) @ outer_Tk
        self.mean_k.copy_(mean_Tk.mean(0) - coefficient_Tk.mean(0) @ slope_kk)
        self.within_kk.copy_(inner_Nk.T @ inner_Nk / (num * (size - 1)))
        self.cross_kk.copy_(centred_Tk.T @ outer_Tk / num)
        # The means of S records scatter by W/S even where all tasks are equal.
        values, vectors = torch.linalg.eigh(outer_Tk.T @ outer_Tk / num - self.within_kk / size)
        self.between_kk.copy_(vectors * values.clamp(min=0) @ vectors.T)

    def forward(self, z_k: Tensor, noise_std: float, n: float) -> Tensor:
        """(k,) coefficients for a noisy mean code of ``n`` records; ``noise_std`` may be infinite."""
        values, vectors = torch.linalg.eigh(self.between_kk + self.within_kk / n)
        gain_k = 1 / (values.clamp(min=1e-8) + noise_std**2)
        guess_k: Tensor = self.cross_kk @ (vectors * gain_k) @ vectors.T @ (z_k - self.mean_k)
        return guess_k
