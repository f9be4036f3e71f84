"""Pretrained pipelines that are tiny and untrained, for trying a sweep file before the real model is at hand.

``python -m dphyper.targets.tiny KIND FOLDER`` writes one. Their classes and files are those of the real ones, so that
everything but the images is as it will be; their weights are random.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from jsonargparse import auto_cli
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dphyper.core.errors import unknown_name


def _autoencoder(channels: int) -> AutoencoderKL:
    """Latents of four channels and half the images' side."""
    return AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
    )


def save_unet(folder: Path, *, image_size: int, channels: int, **changes: Any) -> None:
    """A ``DDPMPipeline``; ``changes`` go to its ``UNet2DModel``."""
    unet = UNet2DModel(
        **{
            "sample_size": image_size,
            "in_channels": channels,
            "out_channels": channels,
            "block_out_channels": (16, 32),
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 1,
            "norm_num_groups": 8,
            **changes,
        }
    )
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder)


def save_dit(folder: Path, *, image_size: int, channels: int) -> None:
    """A ``DiTPipeline`` of ImageNet's classes, with a learned variance as the published ones."""
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=image_size // 2,
        num_embeds_ada_norm=1000,  # the pipeline takes 1000 for the null class, whatever the number
    )
    # A new DiT predicts zero whatever it sees, and nothing that is adapted in its blocks would show.
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    scheduler = DDIMScheduler(clip_sample=False)
    DiTPipeline(transformer, _autoencoder(channels), scheduler, id2label={0: "nothing"}).save_pretrained(folder)


def save_latent(folder: Path, *, image_size: int, channels: int) -> None:
    """A ``StableDiffusionPipeline`` with a tokenizer of single letters."""
    letters = [chr(code) for code in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokenizer = CLIPTokenizer(vocab={word: place for place, word in enumerate(words)}, merges=[], model_max_length=16)
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    unet = UNet2DConditionModel(
        sample_size=image_size // 2,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        cross_attention_dim=16,
    )
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)
    StableDiffusionPipeline(
        vae=_autoencoder(channels),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


TINY: dict[str, Callable[..., None]] = {"unet": save_unet, "dit": save_dit, "latent": save_latent}


def save_tiny(kind: str, folder: Path, image_size: int = 16, channels: int = 3) -> None:
    """Write a tiny pipeline of random weights, always the same.

    Args:
        kind: ``unet``, ``dit`` or ``latent``.
        folder: Where to.
        image_size: Height and width of its images.
        channels: Of its images.

    Raises:
        UserError: An unknown kind.
    """
    if kind not in TINY:
        raise unknown_name("kind of tiny pipeline", kind, TINY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        TINY[kind](folder, image_size=image_size, channels=channels)


if __name__ == "__main__":
    auto_cli(save_tiny)
