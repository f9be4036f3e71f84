"""The yardstick of the gradients' cost is a step without hooks."""

import pytest
from diffusers import UNet2DModel

from dphyper.studies import gradient_cost
from dphyper.targets.diffusion import new_unet


def test_cost_is_measured_beside_a_step_without_hooks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Opacus' hooks, once there, stay on when they are switched off, and would slow the yardstick down."""
    models = []

    def small() -> UNet2DModel:
        models.append(new_unet(image_size=16, channels=1, block_out_channels=(16, 16), layers_per_block=1))
        return models[-1]

    monkeypatch.setattr(gradient_cost, "make_unet", small)
    monkeypatch.setattr(gradient_cost, "run_alone", lambda work, *case: 0)
    gradient_cost.main(batch=2, rounds=2)
    hooked = [any(module._forward_hooks for module in model.modules()) for model in models]
    assert hooked == [False, True] * len(gradient_cost.LAYERS)  # plain and ours
    assert capsys.readouterr().out.count("ratio") == len(gradient_cost.LAYERS)


def test_a_step_needs_more_memory_than_the_model_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = iter((100, 150))
    steps: list[int] = []
    monkeypatch.setattr(gradient_cost, "peak_mib", lambda: next(peaks))
    monkeypatch.setattr(gradient_cost, "make_plain_step", lambda layers: lambda x: steps.append(len(x)))
    assert gradient_cost.measure_peak(-1, ("time",), 2) == 100
    assert steps == []
    assert gradient_cost.measure_peak(0, ("time",), 2) == 150
    assert steps == [2] * gradient_cost.WARM_UP
