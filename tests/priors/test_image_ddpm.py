"""Image diffusion networks as priors: the estimate, conditions, memory, recognition, and the sampler over one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.seeded_weights import seed_weights
from safetensors.torch import load_file
from torch import nn

from fvr.diffusion.schedule import add_noise, bicubic_schedule, linear_schedule
from fvr.methods.base import restore_frames
from fvr.methods.flair.sampler import FlairOptions, FlairRestorer
from fvr.models.difface_unet import DifFaceConfig, DifFaceUNet
from fvr.physics.linear.bicubic import BicubicDownsample
from fvr.priors.image_ddpm import ImagePrior, is_image_prior, prior_from_state

SHARED = Path(__file__).parents[3] / "shared"
PICTURES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def network(inputs=3, outputs=6, levels=2) -> DifFaceUNet:
    config = DifFaceConfig(32, (1,) * levels, (1,) * levels, (levels - 1,), 16, inputs, outputs)
    return seed_weights(DifFaceUNet(config), "small").requires_grad_(False)  # type: ignore[return-value]


class Told(nn.Module):
    """Knows the noise, whatever it is shown; remembers what that was."""

    def __init__(self, noise, most=100):
        super().__init__()
        self.noise = nn.Parameter(noise, requires_grad=False)
        self.most = most
        self.seen = []

    def forward(self, x, t):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.seen.append((x, t))
        return torch.cat([self.noise[: len(x)], torch.full_like(self.noise[: len(x)], 9.0)], 1)


def test_the_true_noise_gives_the_frame_back():
    noise = torch.randn(PICTURES.shape, generator=torch.Generator().manual_seed(1))
    prior = ImagePrior(Told(noise))
    for t in (0, 300, 700):
        x_t = add_noise(PICTURES, noise, prior.schedule.alpha_bar(t))
        torch.testing.assert_close(prior.predict_x0(x_t, t), PICTURES, rtol=0, atol=2e-5)
    assert [seen.tolist() for _, seen in prior.network.seen] == [[0] * 3, [300] * 3, [700] * 3]


def test_estimates_stay_in_range():
    prior = ImagePrior(network())
    x0 = prior.predict_x0(5 * PICTURES, 900)
    assert x0.abs().max() == 1


def test_a_respaced_schedule_still_names_training_steps():
    prior = ImagePrior(Told(torch.zeros_like(PICTURES)), bicubic_schedule().respaced(5))
    prior.predict_x0(PICTURES, 2)
    assert prior.network.seen[0][1].tolist() == [prior.schedule.timesteps[2]] * 3 and prior.schedule.timesteps[2] > 900


def test_the_schedule_is_difaces_unless_said():
    torch.testing.assert_close(ImagePrior(network()).schedule.alphas_cumprod, linear_schedule(1000, 1e-4, 2e-2).alphas_cumprod)


def test_an_unconditional_network_ignores_the_condition():
    prior = ImagePrior(network())
    assert torch.equal(prior.predict_x0(PICTURES, 400, PICTURES.flip(0)), prior.predict_x0(PICTURES, 400))


def test_a_condition_follows_the_noisy_frame_and_zeros_stand_for_none():
    prior = ImagePrior(network(inputs=6), conditional=True)
    with_it, without = prior.predict_x0(PICTURES, 400, PICTURES.flip(0)), prior.predict_x0(PICTURES, 400)
    assert (with_it - without).abs().max() > 0.01
    assert torch.equal(without, prior.predict_x0(PICTURES, 400, torch.zeros_like(PICTURES)))
    info = Told(torch.zeros_like(PICTURES))
    ImagePrior(info, conditional=True).predict_x0(PICTURES, 0, PICTURES.flip(0))
    assert torch.equal(info.seen[0][0], torch.cat([PICTURES, PICTURES.flip(0)], 1))


def test_frames_do_not_meet():
    prior = ImagePrior(network())
    torch.testing.assert_close(prior.predict_x0(PICTURES, 500)[1:2], prior.predict_x0(PICTURES[1:2], 500), rtol=0, atol=1e-5)


def test_batches_shrink_when_memory_runs_out():
    info = Told(torch.zeros_like(PICTURES), most=1)
    x0 = ImagePrior(info).predict_x0(PICTURES, 10)
    assert [len(x) for x, _ in info.seen] == [1, 1, 1]
    assert torch.equal(x0, ImagePrior(Told(torch.zeros_like(PICTURES))).predict_x0(PICTURES, 10))
    with pytest.raises(torch.OutOfMemoryError):
        ImagePrior(Told(torch.zeros_like(PICTURES), most=0)).predict_x0(PICTURES, 10)


def test_the_network_is_placed_for_every_call_with_room_for_its_frames():
    asked = []

    def place(working):
        asked.append(working)
        return torch.device("cpu")

    prior = ImagePrior(network(), place=place)
    prior.predict_x0(PICTURES[:1], 10)
    prior.predict_x0(PICTURES, 10)
    assert asked[1] == 3 * asked[0] > 3 * 32 * 16 * 16 * 4


def test_gradients_reach_the_noisy_frame():
    prior = ImagePrior(network())
    x_t = (0.1 * PICTURES).requires_grad_()
    prior.predict_x0(x_t, 100).square().sum().backward()
    assert x_t.grad.abs().max() > 0


@pytest.mark.parametrize("inputs", [3, 6])
def test_a_state_dict_becomes_the_prior_it_was(inputs):
    trained = network(inputs)
    prior = prior_from_state(trained.state_dict())
    assert (prior.conditional, prior.native_size, prior.temporal) == (inputs == 6, 64, False)
    condition = PICTURES.flip(0) if inputs == 6 else None
    expected = ImagePrior(trained, conditional=inputs == 6).predict_x0(PICTURES, 200, condition)
    torch.testing.assert_close(prior.predict_x0(PICTURES, 200, condition), expected, rtol=0, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in prior.network.parameters())


def test_the_published_networks_are_recognised_by_name():
    path = SHARED / "manifests"
    if not path.exists():
        pytest.skip("needs ../shared/manifests")
    known = {file.stem: is_image_prior(json.loads(file.read_text())["shapes"]) for file in path.glob("*.json")}
    assert [name for name, is_one in known.items() if is_one] == ["difface_unet"]


def test_the_published_tiny_network_is_a_prior_of_64_pixels():
    path = SHARED / "parity" / "pseudo_target_tiny_unet.safetensors"
    if not path.exists():
        pytest.skip("needs ../shared/parity")
    assert prior_from_state(load_file(path)).native_size == 64


def test_other_weights_are_refused_in_a_sentence():
    state = network().state_dict()
    with pytest.raises(ValueError, match="these 2 tensors are no diffusion network of DifFace's kind"):
        prior_from_state({"encoder.weight": torch.zeros(1), "encoder.bias": torch.zeros(1)})
    adding = {key: value[:32] if key.endswith(("emb_layers.1.weight", "emb_layers.1.bias")) else value for key, value in state.items()}
    with pytest.raises(ValueError, match="only adds its time embedding"):
        prior_from_state(adding)
    with pytest.raises(ValueError, match=r"built otherwise than DifFace's \(Missing key.*out.0.bias"):
        prior_from_state({key: value for key, value in state.items() if key != "out.0.bias"})
    # guided diffusion's own networks resample inside residual blocks
    resampling = {key.replace("input_blocks.2.0.op.", "input_blocks.2.0.in_layers.2."): value for key, value in state.items()}
    with pytest.raises(ValueError, match="built otherwise than DifFace's"):
        prior_from_state(resampling)


def test_the_sampler_runs_on_it_and_guides_only_what_has_two_branches():
    x8, calls = BicubicDownsample(8), []
    unet = network(outputs=3, levels=6)  # attention at 16 x 16
    unet.register_forward_hook(lambda module, args, output: calls.append((len(args[0]), torch.is_inference_mode_enabled())))
    frames = x8.forward(torch.rand(3, 3, 512, 512, generator=torch.Generator().manual_seed(2)) * 0.3 + 0.3)
    options = FlairOptions(steps=2, start=0.1, self_condition=False, consistency="pinv", guidance=3.0, rho=0.0, solver="dpm++2m")
    out = restore_frames(FlairRestorer(ImagePrior(unet, batch=2), x8, options), frames)
    assert calls == [(2, True), (1, True)] * 2
    assert out.min() >= 0 and out.max() <= 1
    assert (x8.forward(out) - frames).abs().max() < 0.05
