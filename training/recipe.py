"""Training recipes of the face codebook: the papers', and that of the network embedded in this package."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..models.code_prediction import CodeConfig
from ..models.vq import VQConfig
from .data.degradations import HEAVY, MILD, NATIVE_128, Blind
from .data.faces import MIRROR_ONLY, Jitter
from .data.footage import Footage
from .plan import Plan


@dataclass(frozen=True)
class CodebookRecipe:
    """Everything that determines a trained codebook network except the faces and the seed.

    Attributes:
        name: of the recipe, stored in the weights file.
        sizes: configuration of the network.
        autoencoder, prediction, joint: the schedules of CodeFormer's stages I, II and III.
        jitter: of the training faces.
        blind: degradations of stage II, and of stage III's batches without images.
        gentle: degradations of stage III's batches with images.
        settle: steps of stage I without quantisation; the codebook then starts from latents of faces. 0: uniform in +- 1 / codes from the start.
        revive: interval, in steps of stage I, at which codes unused by a batch of 16 faces are moved onto latents; 0 for never.
        commitment: weight of stage I's commitment loss.
        anchored: share of stage III's L1 taken on the output with the input's coarse means (methods/detail_fusion.py), as it is used later.
        pixels, codes, features: weights of L1, of the code cross-entropy and of the feature loss in stages II and III.
        codes_every: stage III computes the code and feature losses every so many steps, with so many times the weight, which is cheaper.
        perceptual: weight of LPIPS if its weights are installed, else of the distance in our own encoder's features; 0 for none.
        adversary: (stage I, stage III) weights of a patch discriminator; 0 for none.
        adaptive: whether these are multiplied by VQGAN's adaptive weight, at most 1.
        kaiming: whether layers are initialised by Kaiming normal instead of PyTorch's defaults.
        adversary_from: (stage I, stage III) steps at which the discriminator starts.
        open_generator: whether stage III trains the generator too.
        fidelity: w of stage III's image batches as (w, share) pairs; the remaining batches draw w uniformly from 0 to 1.
        schedule: whether stage III follows CodeFormer: w 1, then 1.3, then codes of heavy degradations only, then both mixed.
        cleaned: the schedule of a last stage, on small faces restored by the blind network; None for no such stage.
        footage: degradations of those faces, in `clips` clips.
        uncleaned: share of its batches with stage II's degradations instead.
    """

    name: str
    sizes: CodeConfig
    autoencoder: Plan
    prediction: Plan
    joint: Plan
    jitter: Jitter = MIRROR_ONLY
    blind: Blind = HEAVY
    gentle: Blind = MILD
    settle: int = 0
    revive: int = 0
    commitment: float = 0.25
    pixels: float = 1.0
    anchored: float = 0.0
    codes: float = 0.5
    features: float = 1.0
    codes_every: int = 1
    perceptual: float = 1.0
    adversary: tuple[float, float] = (0.0, 0.0)
    adaptive: bool = True
    adversary_from: tuple[int, int] = (30_001, 5_001)
    kaiming: bool = False
    open_generator: bool = False
    fidelity: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
    schedule: bool = False
    cleaned: Plan | None = None
    footage: Footage = field(default_factory=lambda: Footage(scale=(0.16, 0.55), near=0.0))
    clips: int = 1600
    uncleaned: float = 0.2


# CodeFormer's options files: VQGAN_512_ds32_nearest_stage1.yml, CodeFormer_stage2.yml, CodeFormer_stage3.yml. Batches are those of its 8 GPUs
# together (8 x 4, 8 x 4, 8 x 3). Feature loss 1 and cross-entropy 0.5 (stages II, III). The adversary's adaptive weight, at most 1, times 0.8
# in stage I (what its model code takes where the options, as here, name no disc_weight; their gan_opt's own factor is 1), times 0.1 in stage III
# (scale_adaptive_gan_weight).
PAPER = CodebookRecipe(
    name="CodeFormer 512",
    sizes=CodeConfig(),
    autoencoder=Plan(1_600_000, 32, 7e-5, 6e-5),
    prediction=Plan(500_000, 32, 1e-4, 1e-4, milestones=(400_000, 450_000)),
    joint=Plan(150_000, 24, 5e-5, 2e-5, ema=0.997),
    adversary=(0.8, 0.1),
    schedule=True,
)
# KEEP, section 4: Kaiming Normal, batch 4 and 2e-4 in stages I and II, 800,000 and 400,000 steps; lambda_1, lambda_VGG and lambda_GAN are 1e-2, 1 and
# 1e-2, read as the weights of L1, of the perceptual loss and of the adversary (ESRGAN's L1 has 1e-2, too): the text does not say of what. Its stage
# III is `fvr train keep`. What the paper does not give (losses of stage II, the joint stage that its base went through) is CodeFormer's.
KEEP_BASE = replace(
    PAPER,
    name="KEEP 512, stages I and II",
    autoencoder=Plan(800_000, 4, 2e-4, 2e-4),
    prediction=Plan(400_000, 4, 2e-4, 2e-4),
    pixels=0.01,
    adversary=(0.01, 0.01),
    adaptive=False,
    kaiming=True,
)

# Ours: 128 x 128 on one CPU core in about an hour and a half. Narrow where the map is large, as a normalisation group has two channels there
# too. Faces are moved and relit because there are 444; the codebook starts from latents and dead codes are revived, because there are few steps;
# pixels weigh most, because fidelity is what a small prior can give; stage III opens the generator for the same reason.
SMALL_128 = CodebookRecipe(
    name="embedded 128",
    sizes=CodeConfig(
        VQConfig(side=128, channels=32, multipliers=(1, 2, 3, 4), res_blocks=1, attention=frozenset({16}), code_dim=64, codes=512),
        width=192,
        heads=3,
        layers=4,
        fused=(32, 64),
    ),
    autoencoder=Plan(400, 4, 8e-4, 2e-4, warmup=20, ema=0.98, clip=1.0),
    prediction=Plan(120, 4, 5e-4, 3e-4, warmup=20, ema=0.98, clip=1.0),
    joint=Plan(4600, 4, 8e-4, 1e-5, warmup=50, ema=0.996, clip=1.0),
    cleaned=Plan(2400, 6, 6e-4, 6e-6, warmup=50, ema=0.995, clip=0.2),
    jitter=Jitter(turn=8.0, zoom=0.1, shift=0.03),
    blind=NATIVE_128,
    gentle=NATIVE_128,
    settle=200,
    revive=25,
    pixels=10.0,
    codes=0.1,
    features=0.2,
    codes_every=4,
    anchored=0.85,
    perceptual=0.0,
    open_generator=True,
    fidelity=((1.0, 0.8),),
)
