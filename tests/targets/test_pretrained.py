"""Models of others: what is read as its author meant it, and what is refused, in one line that says what is served."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiTPipeline,
    EDMDPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    ScoreSdeVeScheduler,
    StableDiffusionPipeline,
)
from safetensors.torch import load_file, save_file

from dphyper.core.errors import UserError
from dphyper.core.specs import BaseSpec
from dphyper.targets.pretrained import SCHEDULERS, PipelineFolder, model_folder
from dphyper.targets.registry import TARGETS
from dphyper.targets.target import BaseModel
from dphyper.targets.tiny import TINY, save_tiny

SHAPE: dict[str, int] = {"image_size": 8, "channels": 1}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny pipeline of each kind."""
    folder = tmp_path_factory.mktemp("originals")
    for kind in TINY:
        save_tiny(kind, folder / kind, **SHAPE)
    return folder


@pytest.fixture
def pipeline(originals: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the tiny pipeline of a kind, which a test may spoil."""

    def copy(kind: str) -> Path:
        return Path(shutil.copytree(originals / kind, tmp_path / kind))

    return copy


def read(kind: str, folder: Path, **changes: Any) -> BaseModel:
    """A model as the harness reads it."""
    spec = replace(BaseSpec(kind=kind, pretrained=str(folder), **TARGETS[kind].quick_spec), **changes)
    made = TARGETS[kind].load(folder, **SHAPE)
    made.condition(spec)
    return made


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def spoil_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "scheduler", [FlowMatchEulerDiscreteScheduler, EDMDPMSolverMultistepScheduler, ScoreSdeVeScheduler]
)
@pytest.mark.parametrize("kind", sorted(TINY))
def test_a_scheduler_of_another_family_is_refused(kind: str, scheduler: Any, pipeline: Callable[[str], Path]) -> None:
    folder = pipeline(kind)
    read(kind, folder)
    scheduler().save_pretrained(folder / "scheduler")
    with pytest.raises(UserError, match=rf"scheduler that is {scheduler.__name__}, and what is served .*DDPMScheduler"):
        read(kind, folder)


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != "DPMSolverSDEScheduler"])  # wants torchsde
def test_a_scheduler_of_the_family_gives_the_betas_and_the_prediction_of_its_author(
    name: str, pipeline: Callable[[str], Path]
) -> None:
    import diffusers

    folder = pipeline("unet")
    given = {"num_train_timesteps": 500, "beta_end": 0.015, "prediction_type": "epsilon"}
    own = getattr(diffusers, name)(beta_schedule="scaled_linear", **given)
    own.save_pretrained(folder / "scheduler")
    found = PipelineFolder(path=folder, kind="unet").scheduler()
    torch.testing.assert_close(found.betas, torch.as_tensor(own.betas).float())
    assert len(found.betas) == 500
    assert found.config["prediction_type"] == "epsilon"
    assert found.config["timestep_spacing"] == own.config.get("timestep_spacing", "leading")


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (DDPMScheduler(beta_schedule="sigmoid"), "beta_schedule 'sigmoid': expected linear or"),
        (EulerDiscreteScheduler(), "prediction_type 'flow_prediction': expected epsilon or v_prediction or sample"),
    ],
)
def test_a_schedule_that_is_not_served_is_refused(
    scheduler: Any, message: str, pipeline: Callable[[str], Path]
) -> None:
    folder = pipeline("unet")
    scheduler.save_pretrained(folder / "scheduler")
    if isinstance(scheduler, EulerDiscreteScheduler):
        edit(folder / "scheduler" / "scheduler_config.json", prediction_type="flow_prediction")
    with pytest.raises(UserError, match=message):
        read("unet", folder)


@pytest.mark.parametrize("kind", sorted(TINY))
def test_a_pipeline_of_another_kind_names_the_kind_that_serves_it(kind: str, originals: Path) -> None:
    for other in {*TINY} - {kind}:
        message = rf"holds a \w+Pipeline, and base.kind = '{other}' serves \w.*: set base.kind to {kind}$"
        with pytest.raises(UserError, match=message):
            read(other, originals / kind)


@pytest.mark.parametrize("name", ["StableDiffusionXLPipeline", "FluxPipeline", "LDMPipeline", "ScoreSdeVePipeline"])
@pytest.mark.parametrize("kind", sorted(TINY))
def test_other_pipelines_are_refused_by_name(kind: str, name: str, pipeline: Callable[[str], Path]) -> None:
    folder = pipeline(kind)
    edit(folder / "model_index.json", _class_name=name)
    with pytest.raises(UserError, match=f"holds a {name}, and base.kind = '{kind}' serves "):
        read(kind, folder)


def test_the_unet_of_a_latent_diffusion_folder_is_no_pixel_model(pipeline: Callable[[str], Path]) -> None:
    """Neither by the name of its pipeline, nor where nothing names the pipeline."""
    folder = pipeline("unet")
    edit(folder / "model_index.json", _class_name="LDMPipeline")
    with pytest.raises(UserError, match="holds a LDMPipeline"):
        read("unet", folder)
    (folder / "model_index.json").unlink()
    read("unet", folder)
    (folder / "vqvae").mkdir()
    with pytest.raises(UserError, match="has an autoencoder beside its U-Net"):
        read("unet", folder)


@pytest.mark.parametrize(
    ("kind", "part", "changes", "message"),
    [
        (
            "unet",
            "unet",
            {"_class_name": "UNet2DConditionModel"},
            "unet that is UNet2DConditionModel, and .* UNet2DModel",
        ),
        ("unet", "unet", {"sample_size": None}, r"sample_size: null"),
        ("unet", "unet", {"sample_size": [8, 16]}, r"images of size \[8, 16\]"),
        ("unet", "unet", {"out_channels": 3}, "out_channels = 3: expected 1, or 2"),
        ("unet", "unet", {"class_embed_type": "timestep"}, "class_embed_type 'timestep'"),
        ("unet", "unet", {"mid_block_type": None}, "mid_block_type 'None'"),
        ("unet", "unet", {"layers_per_block": 2}, "export the model again"),
        ("unet", "unet", {"norm_num_groups": 5}, r"cannot be read .*: export the model again"),
        ("dit", "transformer", {"_class_name": "SD3Transformer2DModel"}, "serves DiTTransformer2DModel or"),
        ("dit", "transformer", {"norm_type": "layer_norm"}, "expected 'ada_norm_zero', as a DiT has"),
        ("dit", "transformer", {"sample_size": 8}, "images of size 16 .*: set data.image_size"),
        ("dit", "vae", {"_class_name": "VQModel"}, "vae that is VQModel, and base.kind = 'dit' serves AutoencoderKL"),
        ("latent", "unet", {"in_channels": 9}, "unet of 9 channels and a vae of 4"),
        ("latent", "unet", {"addition_embed_type": "text_time"}, "one that takes a prompt alone"),
        ("latent", "unet", {"cross_attention_dim": 32}, "texts of 32 dimensions and a text encoder of 16"),
        ("latent", "text_encoder", {"architectures": ["T5EncoderModel"]}, "T5EncoderModel, .* serves CLIPTextModel"),
        ("latent", "unet", {"sample_size": None}, r"sample_size: null"),
    ],
)
def test_a_configuration_that_is_not_served_is_refused(
    kind: str, part: str, changes: dict[str, Any], message: str, pipeline: Callable[[str], Path]
) -> None:
    folder = pipeline(kind)
    read(kind, folder)
    edit(folder / part / "config.json", **changes)
    with pytest.raises(UserError, match=message) as caught:
        read(kind, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "part"), [("unet", "unet"), ("dit", "transformer"), ("dit", "vae"), ("latent", "text_encoder")]
)
def test_weights_that_are_missing_or_no_numbers_are_refused(
    kind: str, part: str, pipeline: Callable[[str], Path]
) -> None:
    folder = pipeline(kind)

    def one_nan(weights: dict[str, torch.Tensor]) -> None:
        weights[min(weights)].view(-1)[0] = float("nan")

    def one_less(weights: dict[str, torch.Tensor]) -> None:
        del weights[min(weights)]

    spoil_weights(folder / part, one_nan)
    with pytest.raises(UserError, match=f"weights that are no numbers .*{part}"):
        read(kind, folder)
    spoil_weights(folder / part, one_less)
    with pytest.raises(UserError, match=f"has 1 weights of its {part} missing"):
        read(kind, folder)
    for path in (folder / part).glob("*.safetensors"):
        path.unlink()
    with pytest.raises(UserError, match="export the model again"):
        read(kind, folder)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("unet", {"class_label": 3}, r"base.class_label = 3: this model of kind 'unet' has none"),
        ("unet", {"prompt": "a cat"}, r"base.prompt = 'a cat': this model"),
        ("unet", {"guidance_scale": 3.0}, r"base.guidance_scale = 3.0: this model"),
        ("dit", {"class_label": -1}, r"is class-conditional, and base.class_label = -1: expected .* 0 to 1000"),
        ("dit", {"class_label": 1001}, r"0 to 1000"),
        ("dit", {"prompt": "a cat"}, r"base.prompt"),
        ("dit", {"flips": True}, r"base.flips = True"),
        ("latent", {"class_label": 3}, r"base.class_label"),
    ],
)
def test_a_condition_that_the_model_does_not_know_is_refused(
    kind: str, changes: dict[str, Any], message: str, originals: Path
) -> None:
    with pytest.raises(UserError, match=message):
        read(kind, originals / kind, **changes)


def theirs(kind: str, folder: Path) -> np.ndarray[Any, Any]:
    """(2, 8, 8, 1) images of diffusers' own pipeline, by its own loop with the sampler that we use."""
    scheduler = {"algorithm_type": "dpmsolver++", "final_sigmas_type": "zero"}
    from diffusers import DPMSolverMultistepScheduler

    pipe: Any = (DiTPipeline if kind == "dit" else StableDiffusionPipeline).from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, **scheduler)
    rng = torch.Generator().manual_seed(5)
    given = {"num_inference_steps": 4, "guidance_scale": 2.0, "generator": rng, "output_type": "np"}
    if kind == "dit":
        return np.asarray(pipe(class_labels=[1, 1], **given).images)
    return np.asarray(pipe(["a digit"] * 2, height=8, width=8, **given).images)


@pytest.mark.parametrize("kind", ["dit", "latent"])
def test_samples_are_those_of_diffusers_own_pipeline(
    kind: str, originals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same network, condition, guidance, schedule and autoencoder: only the noise of the steps is left out."""
    from dphyper.targets import lora

    expected = theirs(kind, originals / kind)
    spec = replace(
        BaseSpec(kind=kind, pretrained=str(originals / kind), **TARGETS[kind].quick_spec),
        sampling_steps=4,
        guidance_scale=2.0,
    )
    made = TARGETS[kind].load(originals / kind, **SHAPE)
    made.condition(spec)
    target = made.target(spec)
    solver = target._solver  # type: ignore[attr-defined]

    def deterministic(self: lora.LoRADiffusion) -> Any:
        found = type(solver()).from_config(solver().config, algorithm_type="dpmsolver++")
        found.set_timesteps(4)
        return found

    monkeypatch.setattr(lora.LoRADiffusion, "_solver", deterministic)
    images = target.sample(target.initial(), 2, torch.Generator().manual_seed(5)) / 255
    np.testing.assert_allclose(images, expected[..., :1], atol=1.5 / 255)
    other = target.sample(target.initial(), 2, torch.Generator().manual_seed(6)) / 255
    assert np.abs(other - expected[..., :1]).max() > 0.1


def test_encodings_that_are_remembered_are_taken_and_others_are_made(originals: Path) -> None:
    model = read("latent", originals / "latent")
    records = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    x = model.encode(records)
    model.remember(records[:2], x[:2] + 1)
    torch.testing.assert_close(model.encode(records), torch.cat([x[:2] + 1, x[2:]]), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["nobody/nothing", "nobody/nothing@main"])
def test_a_name_on_the_hub_without_a_network_is_refused_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import DiffusionPipeline

    def offline(repository: str, revision: str | None) -> str:
        assert (repository, revision) == ("nobody/nothing", "main" if "@" in name else None)
        raise OSError("no network\nat all")

    monkeypatch.setattr(DiffusionPipeline, "download", offline)
    with pytest.raises(UserError, match=r"no pipeline of that name could be fetched \(OSError: no network\)") as caught:
        model_folder(name)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"no such folder; expected a folder, or OWNER/NAME on the hub"):
        model_folder("a/folder/that/is/not/there")


def test_a_name_on_the_hub_is_the_folder_that_was_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    monkeypatch.setattr(DiffusionPipeline, "download", lambda *given, **named: str(tmp_path))
    assert model_folder("somebody/something") == tmp_path
    model_folder.cache_clear()


def test_the_most_steps_of_a_schedule_are_its_own(pipeline: Callable[[str], Path]) -> None:
    folder = pipeline("unet")
    for scheduler in (PNDMScheduler(num_train_timesteps=40), DDIMScheduler(num_train_timesteps=40)):
        scheduler.save_pretrained(folder / "scheduler")
        made = read("unet", folder)
        assert torch.isfinite(made.loss(made.encode(np.zeros((2, 8, 8, 1), np.uint8))))
