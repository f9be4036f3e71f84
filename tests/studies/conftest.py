"""What studies of the hypernetwork are tried on: an untrained network of 8×8 images."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dphyper.audits import contract
from dphyper.methods.hypernetwork import Hypernetwork
from dphyper.targets.diffusion import to_uint8


@pytest.fixture
def network() -> Hypernetwork:
    """A frozen network with random weights."""
    method = contract.tiny_method("hypernetwork").requires_grad_(False)
    assert isinstance(method, Hypernetwork)
    return method


@pytest.fixture
def draw_images() -> Callable[[int], NDArray[np.uint8]]:
    """Draws (count, 8, 8, 1) grey noise around the middle."""
    return lambda count: to_uint8(contract.tiny_records(count) * 0.2)
