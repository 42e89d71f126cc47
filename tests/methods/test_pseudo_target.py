"""Algorithm 1: the official trajectory, and its laws over priors with and without a learnt variance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.seeded_weights import seed_weights
from helpers.tiny_seed_models import TinyUNet
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from fvr.diffusion.schedule import add_noise, bicubic_schedule
from fvr.methods.pseudo_target.algorithm import PRESETS, LowPass, PseudoTargetOptions, low_pass_matrix, pseudo_target, target_steps, trajectory
from fvr.methods.pseudo_target.transition import transition
from fvr.models.difface_unet import DifFaceConfig, DifFaceUNet
from fvr.physics.linear.bicubic import bicubic_matrix
from fvr.priors.image_ddpm import ImagePrior
from fvr.priors.wiener import GaussianPrior

DATA = Path(__file__).parents[1] / "data"
SHARED = Path(__file__).parents[3] / "shared" / "parity"
AS_IS = PseudoTargetOptions(N=8, K=80, L=48, scaled=False)
"""20 and 12 of 250 steps."""


def official_network() -> DifFaceUNet:
    """The network of the reference: default weights of seed 7, then what starts as zeros drawn with deviation 0.02 and seed 11."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = DifFaceUNet(DifFaceConfig(32, (1, 2), (1, 1), (), 32))
        torch.manual_seed(11)
        with torch.no_grad():
            for parameter in network.parameters():
                if not parameter.any():
                    parameter.normal_(0, 0.02)
    return network.eval().requires_grad_(False)


def small_prior(outputs: int = 6) -> ImagePrior:
    network = seed_weights(DifFaceUNet(DifFaceConfig(32, (1, 1), (1, 1), (1,), 16, 3, outputs)), "small")
    return ImagePrior(network.requires_grad_(False), native_size=32)


def drawn(shape: tuple[int, ...], seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=generator)


def faces(n: int = 2, side: int = 32) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(5)) * 0.6 + 0.2


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    return load_file(DATA / "pseudo_target.safetensors")


def test_the_official_trajectory(reference):
    """Noise to 20, constrained to 12, unconstrained to 0, learnt variance: every sample to 1e-5."""
    network = official_network()
    state = network.state_dict()
    for name, kept in {"weights_time": state["time_embed.0.weight"][:4], "weights_out": state["out.2.weight"][:, :4]}.items():
        assert_close(kept, reference[name], atol=1e-6, rtol=0)
    assert_close(state["middle_block.1.proj_out.weight"][:4], reference["weights_middle_proj_out"], atol=1e-6, rtol=0)
    noise = drawn((1, 3, 64, 64), 123)
    first = iter(reference["noise_first"])

    def draw() -> Tensor:
        n = noise()
        assert_close(n[0, :, 0, :4], next(first), atol=1e-6, rtol=0)
        return n

    prior = ImagePrior(network)
    numbers = trajectory(AS_IS, prior, 64)
    assert (numbers.K, numbers.L, numbers.N) == (20, 12, 8)
    assert numbers.schedule.timesteps[:21] == tuple(range(0, 81, 4))
    samples = []
    final = pseudo_target(reference["y0"], prior, numbers, draw, lambda step: samples.append(step.sample[0, :, ::2, 1::2]))
    assert_close(torch.stack(samples), reference["samples_stride2"], atol=1e-5, rtol=0)
    assert_close(final, reference["final"], atol=1e-5, rtol=0)


def test_the_whole_official_reference():
    path = SHARED / "pseudo_target_K20_L12_N8.npz"
    if not path.exists():
        pytest.skip("needs ../shared/parity")
    import numpy as np

    with np.load(path) as held:
        whole = {name: torch.from_numpy(held[name]) for name in held}
    state = load_file(SHARED / "pseudo_target_tiny_unet.safetensors")
    prior = ImagePrior(DifFaceUNet.of(state, replace(DifFaceConfig.of(state), head=32)).requires_grad_(False))
    noise, samples = iter(whole["noise"]), iter(whole["xs"])
    numbers = trajectory(AS_IS, prior, 64)
    assert_close(add_noise(2 * whole["y0"] - 1, whole["noise"][0], numbers.schedule.alpha_bar(numbers.K)), whole["yt"], atol=1e-6, rtol=0)
    check = lambda step: assert_close(step.sample, next(samples), atol=1e-5, rtol=0)  # noqa: E731
    assert_close(pseudo_target(whole["y0"], prior, numbers, lambda: next(noise), check), whole["final"], atol=1e-5, rtol=0)


def test_the_low_pass_filter_is_the_official_one(reference):
    assert_close(LowPass(8)(2 * reference["y0"] - 1), reference["phi"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("length", "N"), [(64, 8), (64, 2), (30, 3), (128, 16), (512, 16)])
def test_the_low_pass_filter_keeps_constants_and_mirrors(length, N):
    matrix = low_pass_matrix(length, N)
    assert_close(matrix.sum(1), torch.ones(length, dtype=torch.float64))
    assert_close(matrix, matrix.flip(0, 1), atol=1e-12, rtol=0)
    assert torch.linalg.matrix_rank(matrix) == length // N
    nyquist = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(length // 2)
    assert (matrix @ nyquist)[2 * N : -2 * N].abs().max() < 0.03  # nearer to the ends the mirror turns it into something slower


def test_a_filter_of_one_is_nothing():
    x = faces()
    assert torch.equal(LowPass(1)(x), x)


@pytest.mark.parametrize("prior", [small_prior(), small_prior(3), GaussianPrior(), TinyUNet()], ids=["learnt", "eps", "gaussian", "conv"])
def test_constrained_steps_take_their_low_frequencies_from_the_guide(prior):
    """x_{t-1} = sample - phi(sample) + phi(y_{t-1}): what is no low frequency stays, and what the filter lets through is the guide's."""
    numbers = trajectory(PseudoTargetOptions(N=4, K=80, L=30, steps=100, scaled=False), prior, 32)
    y0, phi = 2 * faces() - 1, LowPass(4)
    few = bicubic_matrix(32, 4).float()
    steps = list(target_steps(y0, prior, numbers, drawn(y0.shape)))
    assert [step.entry for step in steps] == list(range(7, -1, -1))
    assert [step.guide is not None for step in steps] == [True] * 5 + [False] * 3
    for step in steps:
        if step.guide is None:
            assert torch.equal(step.x_prev, step.sample)
            continue
        assert_close(step.x_prev - phi(step.guide), step.sample - phi(step.sample), atol=1e-5, rtol=0)
        before, after = (few @ (x - step.guide) @ few.mT for x in (step.sample, step.x_prev))
        assert after.square().mean() < 0.2 * before.square().mean()  # phi is no projection, so a little is left
        alpha_bar = numbers.schedule.alpha_bar(step.entry - 1)
        assert float((step.guide - alpha_bar**0.5 * y0).std()) == pytest.approx((1 - alpha_bar) ** 0.5, abs=0.05)
    assert (steps[-1].x_prev == steps[-1].x0).all()  # the last step has no noise, and its mean is the estimate


def test_noise_is_drawn_in_the_official_order():
    """One for x_K, then one or two a step, none for the last."""
    prior = small_prior()
    count = 0

    def draw() -> Tensor:
        nonlocal count
        count += 1
        return torch.zeros(1, 3, 32, 32)

    numbers = trajectory(PseudoTargetOptions(N=2, K=60, L=20, steps=100, scaled=False), prior, 32)
    pseudo_target(faces(1), prior, numbers, draw)
    assert count == 1 + 5 + 4
    count = 0
    pseudo_target(faces(1), prior, trajectory(PseudoTargetOptions(N=2, K=60, L=0, steps=100, scaled=False), prior, 32), draw)
    assert count == 1 + 5 + 5  # held to the end, but the last step leads to no noisy guide


def test_a_learnt_variance_lies_between_the_two_of_ddpm():
    prior, other = small_prior(), small_prior(3)
    assert prior.learns_variance and not other.learns_variance and not GaussianPrior().learns_variance
    x = 2 * faces() - 1
    schedule = prior.schedule.respaced(50)
    for entry in (0, 1, 20, 49):
        t = schedule.timesteps[entry]
        learnt, fixed = transition(prior, x, t, schedule, entry), transition(other, x, t, schedule, entry)
        assert_close(learnt.mean, transition(prior, x, t, schedule, entry).mean)
        alpha_bar, before = schedule.alpha_bar(entry), schedule.alpha_bar(entry - 1)
        beta = 1 - alpha_bar / before
        assert_close(fixed.deviation**2, beta * (1 - before) / (1 - alpha_bar))
        share = prior.network(x, torch.full((2,), t), variance=True)[:, 3:] / 2 + 0.5
        low = (
            beta * (1 - before) / (1 - alpha_bar)
            if entry
            else (1 - schedule.alpha_bar(1) / alpha_bar) * (1 - alpha_bar) / (1 - schedule.alpha_bar(1))
        )
        assert_close(learnt.deviation**2, low ** (1 - share) * beta**share, rtol=1e-4, atol=1e-9)


def test_batch_equals_single():
    prior = small_prior()
    numbers = trajectory(PseudoTargetOptions(N=4, K=60, L=20, steps=100, scaled=False), prior, 32)
    noise = [[torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(100 * face + k)) for k in range(10)] for face in range(3)]
    y0 = faces(3)

    def made(which: list[int]) -> Tensor:
        count = iter(range(10))

        def draw() -> Tensor:
            k = next(count)
            return torch.stack([noise[face][k] for face in which])

        return pseudo_target(y0[which], prior, numbers, draw)

    together = made([0, 1, 2])
    assert_close(torch.cat([made([face]) for face in range(3)]), together, atol=1e-4, rtol=0)
    assert_close(made([2, 0]), together[[2, 0]], atol=1e-4, rtol=0)
    assert (together[0] - together[1]).abs().max() > 0.05


def test_the_constraint_keeps_the_face():
    """The low-pass of the target stays by the restorer's, and the nearer the finer the filter; without the constraint it wanders off."""
    prior, y0 = TinyUNet(), faces(1)
    drift = {}
    for name, options in {
        "finer": PseudoTargetOptions(2, 600, 50, 40, scaled=False),
        "held": PseudoTargetOptions(8, 600, 50, 40, scaled=False),
        "free": PseudoTargetOptions(8, 600, 575, 40, scaled=False),
    }.items():
        target = pseudo_target(y0, prior, trajectory(options, prior, 32), drawn(y0.shape))
        drift[name] = float((LowPass(4)(target) - LowPass(4)(y0)).abs().mean())
    assert drift["finer"] < 0.3 * drift["free"] and drift["held"] < 0.85 * drift["free"], drift


def test_an_anchored_target_has_the_low_frequencies_of_the_restorer_and_the_priors_detail():
    prior, y0, phi = TinyUNet(), faces(1), LowPass(4)

    def made(anchored: bool) -> Tensor:
        numbers = trajectory(PseudoTargetOptions(4, 400, 300, 40, scaled=False, anchored=anchored), prior, 32)
        return pseudo_target(y0, prior, numbers, drawn(y0.shape))

    free, held = made(False), made(True)
    assert (phi(held) - phi(y0)).abs().mean() < 0.01 < (phi(free) - phi(y0)).abs().mean()
    difference = ((held - phi(held)) - (free - phi(free))).abs().mean()
    assert difference < 0.25 * ((held - phi(held)) - (y0 - phi(y0))).abs().mean()


def test_published_numbers_are_those_of_the_paper():
    prior = ImagePrior(official_network())
    for name, N in {"codeformer": 8, "codeformer-x8": 16, "swinir": 16}.items():
        numbers = trajectory(PRESETS[name], prior, 512)
        assert (numbers.N, numbers.K, numbers.L, len(numbers.schedule)) == (N, 150, 90, 250)
        assert (numbers.schedule.timesteps[150], numbers.entries[149], numbers.entries[90]) == (602, 598, 361)


@pytest.mark.parametrize(("side", "N"), [(128, 4), (64, 2), (256, 8)])
@pytest.mark.parametrize("schedule", [None, bicubic_schedule()], ids=["1000", "2000"])
def test_smaller_priors_get_the_same_noise_for_a_feature_of_the_face(side, N, schedule):
    prior = GaussianPrior(schedule)
    numbers, whole = trajectory(PseudoTargetOptions(N=16), prior, side), trajectory(PseudoTargetOptions(N=16), prior, 512)
    assert numbers.N == N
    for here, there in ((numbers.K, whole.K), (numbers.L, whole.L)):
        assert numbers.schedule.sigma(here) * 512 / side == pytest.approx(whole.schedule.sigma(there), rel=0.03)
    assert numbers.entries[5] == prior.schedule.respaced(250).timesteps[5]
    as_is = trajectory(PseudoTargetOptions(N=16, scaled=False), prior, side)
    assert (as_is.N, as_is.K, as_is.L) == (16, 150, 90)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"N": 0}, "N must lie between 1 and 128, got 0"),
        ({"K": 1001}, "K must lie between 1 and 1000, got 1001"),
        ({"K": 300.5}, "K must be a whole number, got 300.5"),
        ({"L": 600}, "L must be below K, got K 600 and L 600"),
        ({"steps": 1}, "steps must lie between 2 and 1000, got 1"),
        ({"steps": 3, "K": 700, "L": 600}, "one and the same of 3 steps; raise steps"),
        ({"batch": 0}, "batch must lie between 1 and 64, got 0"),
    ],
)
def test_values_out_of_range_are_refused_in_a_sentence(changes, says):
    with pytest.raises(ValueError) as error:
        PseudoTargetOptions(**changes)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_faces_that_do_not_fit_are_refused():
    prior = small_prior()
    with pytest.raises(ValueError, match="choose an N that divides 36"):
        trajectory(PseudoTargetOptions(scaled=False), prior, 36)
    with pytest.raises(ValueError, match="N 12, scaled to it, is 3: choose a power of 2"):
        trajectory(PseudoTargetOptions(N=12), prior, 128)
    numbers = trajectory(PseudoTargetOptions(4, 60, 20, 100, False), prior, 32)
    with pytest.raises(ValueError, match=r"takes RGB faces \(n, 3, 32, 32\), got \(2, 3, 64, 64\)"):
        pseudo_target(faces(side=64), prior, numbers, drawn((2, 3, 64, 64)))
