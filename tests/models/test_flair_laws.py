"""What is true of FLAIR's networks whatever their weights, and that each shortcut in them gives what the long way gives."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.flair_small import SIDE, SMALL, clip, gap, seeded
from torch import nn
from torchvision.ops import deform_conv2d

from fvr.models.adm import timestep_embedding
from fvr.models.flair.attention import TemporalAttention
from fvr.models.flair.convolution import TimeConv
from fvr.models.flair.norm import ClipNorm, moments
from fvr.models.flair.recurrence import Alignment, Recurrence
from fvr.models.flair.spynet import SPyNet, warped
from fvr.models.flair.temporal import Gated, split_parameters
from fvr.models.flair.window import Flow, Window

KINDS = tuple(SMALL)
LEVEL = {"bicubic": torch.tensor(0.7), "blur": torch.tensor(400.0)}


@pytest.fixture(scope="module", params=KINDS)
def network(request):
    return request.param, seeded(request.param)


@pytest.fixture(autouse=True)
def no_gradients_unless_asked(request):
    with torch.set_grad_enabled("gradient" in request.node.name):
        yield


def window(frames, pixels=None, count=None, flows=None, weights=1.0):
    return Window(frames, torch.zeros(count or frames, 8), True, flows or {}, weights, pixels)


def randomised(module):
    """`module` with no parameter left at its initial value."""
    draw = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        fan = max(1, parameter[0].numel()) if parameter.ndim > 1 else 10
        nn.init.normal_(parameter, std=fan**-0.5, generator=draw)
    return module.eval()


@pytest.mark.parametrize("pixels", [None, 1, 3 * 16, 7 * 16])
def test_norm_spans_the_frames_of_a_clip(pixels):
    """Two-pass statistics equal nn.GroupNorm on (B, C, T, h, w), also far from zero mean and with frames unlike each other."""
    norm = randomised(ClipNorm(8, 32))
    x = torch.randn(2 * 5, 32, 4, 4) * torch.linspace(0.1, 3, 10).view(-1, 1, 1, 1) + torch.linspace(-20, 20, 10).view(-1, 1, 1, 1)
    whole = norm.wrapped_module(x.unflatten(0, (2, 5)).transpose(1, 2)).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(norm(x, window(5, pixels, 10)), whole, rtol=1e-4, atol=1e-4)


def test_gradients_of_single_frames_norm_are_those_in_pieces():
    """By PyTorch's own kernel where all frames are worked on at once: the same values and gradients."""
    norm = randomised(ClipNorm(8, 32))
    film, found = (torch.randn(3, 32), torch.randn(3, 32)), []
    for pixels in (None, 16):
        x = (torch.randn(3, 32, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 2).requires_grad_()
        read = norm.read(x, window(1, pixels, 3), film)
        y = torch.cat([read(slice(n, n + 1)) for n in range(3)])
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *norm.parameters()])])
    for whole, pieces in zip(*found, strict=True):
        torch.testing.assert_close(whole, pieces, rtol=1e-3, atol=1e-3)


def test_moments_do_not_depend_on_gradients():
    """Summed channel by channel, or by var_mean where gradients are kept."""
    x = (3 * torch.randn(2, 32, 8, 8) + torch.linspace(-20, 20, 32).view(-1, 1, 1)).contiguous(memory_format=torch.channels_last)
    quick = moments(x, 8)
    with torch.enable_grad():
        torch.testing.assert_close(quick, moments(x, 8), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("pixels", [None, 1, 2 * 36])
def test_time_convolution_in_pieces(kernel, pixels):
    """Pieces with a frame of context on either side equal nn.Conv3d on each clip."""
    conv = randomised(TimeConv(8, kernel))
    x = torch.randn(2 * 5, 8, 6, 6)
    whole = conv.wrapped_module(x.unflatten(0, (2, 5)).transpose(1, 2)).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(conv.over(x.__getitem__, x, window(5, pixels, 10)), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 6])
def test_temporal_attention_the_long_way(frames):
    """Keys and values made once per frame equal those made anew for each window from its own frames; the centre is not among them."""
    span, heads, width = 5, 2, 64
    layer = randomised(TemporalAttention(width, span, width // heads))
    x = torch.randn(2 * frames, width, 3, 3)
    context = window(frames, count=2 * frames)
    normed = layer.norm(x, context)
    sin, cos = timestep_embedding(torch.arange(span) - span // 2, width)
    places = torch.cat([cos, sin], 1)
    rows = []
    for index in range(2 * frames):
        start = index - index % frames
        around = [start + min(max(index - start + step, 0), frames - 1) for step in range(-2, 3)]
        tokens = normed[around].flatten(2).permute(2, 0, 1)  # (hw, span, C)
        others = [0, 1, 3, 4]
        q = layer.q_linear(tokens[:, 2:3] + places[2])
        k = layer.k_linear(tokens[:, others] + places[others])
        v = layer.v_linear(tokens[:, others])
        q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        scores = (q @ k.mT / (width // heads) ** 0.5).softmax(-1)
        rows.append((scores @ v).flatten(1).mT.unflatten(1, (3, 3)))
    torch.testing.assert_close(layer(x, context), x + layer.proj.conv(torch.stack(rows)), rtol=1e-4, atol=1e-5)


def test_temporal_attention_does_not_see_the_centre():
    layer = randomised(TemporalAttention(32, 3, 32))
    layer.norm = nn.Identity()
    layer.norm.forward = lambda x, window: x
    layer.q_linear.weight.zero_()
    x = torch.randn(3, 32, 2, 2)
    changed = x.clone()
    changed[1] += 1
    before, after = (layer(frames, window(3)) - frames for frames in (x, changed))
    torch.testing.assert_close(after[1], before[1])
    assert not torch.allclose(after[0], before[0])


@pytest.mark.parametrize("order", [1, 2])
def test_alignment_in_halves(order):
    """Each half convolved on its own equals one deformable convolution of both, zeros standing in for what is missing."""
    width, reach = 32, 5.0
    align = randomised(Alignment(width, reach))
    current, first, second = torch.randn(3, 1, width, 12, 12)
    flow_1, flow_2 = 2 * torch.randn(2, 1, 2, 12, 12)
    if order == 1:
        second, flow_2 = torch.zeros_like(second), torch.zeros_like(flow_2)
    x = torch.cat([warped(first, flow_1), current, warped(second, flow_2), flow_1, flow_2], 1)
    for number, conv in align.conv_offset.items():
        x = conv(x if number == "0" else F.leaky_relu(x, 0.1))
    offsets = reach * x[:, :288].tanh() + torch.cat([flow_1.flip(1).repeat(1, 72, 1, 1), flow_2.flip(1).repeat(1, 72, 1, 1)], 1)
    whole = deform_conv2d(torch.cat([first, second], 1), offsets, align.weight, align.bias, padding=1, mask=x[:, 288:].sigmoid())
    found = align(current, [(first, flow_1), (second, flow_2)][:order])
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)


def test_warping_by_whole_pixels():
    """flow (2, -1) fetches what lies two to the right and one above; zeros, or the border, beyond."""
    x = torch.randn(1, 3, 8, 9)
    flow = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 8, 9)
    torch.testing.assert_close(warped(x, flow)[..., 1:, :-2], x[..., :-1, 2:], rtol=1e-4, atol=1e-5)
    assert warped(x, flow)[..., 0, :].abs().max() < 1e-5
    torch.testing.assert_close(warped(x, flow, "border")[..., 0, :-2], x[..., 0, 2:], rtol=1e-4, atol=1e-5)


def test_annealing():
    """With weight 0 nothing is carried (eq. 17): a frame's features do not reach the others. With weight 1 they reach both ways."""
    size, frames = (8, 8), 4
    layer = randomised(Recurrence(32, 5.0))
    flows = {size: Flow(*torch.randn(2, 1, frames - 1, 2, *size))}
    x = torch.randn(frames, 32, *size)
    changed = x.clone()
    changed[1] += 1
    for weight, reached in ((0.0, [1]), (1.0, [0, 1, 2, 3])):
        table = {size: torch.full((frames, 1, *size), weight)}
        for weights in (weight, table):
            context = window(frames, flows=flows, weights=weights)
            moved = (layer(changed, context) - layer(x, context)).flatten(1).abs().amax(1)
            assert [n for n in range(frames) if moved[n] > 1e-4] == reached


def test_recurrence_is_eq_16_and_17():
    """Written out: f^_n aligned from the last two, g_n = w_n (f^_n + ResBlocks(f_n, g of the pass before, f^_n)), back in time and then forward."""
    size, frames = (8, 8), 4
    layer = randomised(Recurrence(32, 5.0))
    flow, weights = Flow(*torch.randn(2, 1, frames - 1, 2, *size)), torch.rand(frames, 1, *size)
    f = torch.randn(frames, 32, *size)
    passes = []
    for way, order in (("backward_1", [3, 2, 1, 0]), ("forward_1", [0, 1, 2, 3])):
        to_last = {n: flow.ahead[:, n] if order[0] else flow.back[:, n - 1] for n in order[1:]}
        g = {}
        for step, n in enumerate(order):
            carried = [(g[order[step - 1]], to_last[n])] if step else []
            if step > 1:
                carried.append((g[order[step - 2]], to_last[n] + warped(to_last[order[step - 1]], to_last[n])))
            aligned = layer.deform_align[way](f[n : n + 1], carried) if step else torch.zeros_like(f[:1])
            fused = layer.backbone[way](torch.cat([f[n : n + 1], *(before[n] for before in passes), aligned], 1))
            g[n] = weights[n] * (aligned + fused)
        passes.append(g)
    merged = [layer.reconstruction(torch.cat([f[n : n + 1], *(g[n] for g in passes)], 1)) for n in range(frames)]
    found = layer(f, window(frames, flows={size: flow}, weights={size: weights}))
    torch.testing.assert_close(found, f + layer.conv_last(torch.cat(merged)), rtol=1e-4, atol=1e-5)


def test_weights_are_resized_once_and_by_nearest(network):
    _, unet = network
    mask = torch.zeros(2, 1, 32, 32)
    mask[..., ::2, ::2] = 1
    table = unet.resized_weights(mask)
    assert table[(32, 32)].equal(mask)
    assert table[(16, 16)].equal(torch.ones(2, 1, 16, 16))


@pytest.mark.parametrize("pixels", [1, 2 * SIDE * SIDE])
def test_pieces_change_nothing(network, pixels):
    kind, unet = network
    x_t, condition = clip(3)
    found = unet(x_t, condition, LEVEL[kind], pixels=pixels, weights=torch.full((1, 1, SIDE, SIDE), 0.9))
    assert gap(found, unet(x_t, condition, LEVEL[kind], weights=0.9)) < 1e-5


def test_flow_once_per_window(network):
    """Flow handed in equals flow made on the way, which costs 2 (T - 1) calls of SPyNet per size."""
    kind, unet = network
    x_t, condition = clip(3)
    calls = []
    spynet = next(module for module in unet.modules() if isinstance(module, SPyNet))
    handle = spynet.register_forward_hook(lambda *_: calls.append(1))
    flows = unet.flows(condition)
    assert len(calls) == 2 * 2 * len(unet.sizes(SIDE, SIDE))
    found = unet(x_t, condition, LEVEL[kind], flows=flows)
    assert len(calls) == 2 * 2 * len(unet.sizes(SIDE, SIDE))
    handle.remove()
    assert found.equal(unet(x_t, condition, LEVEL[kind]))


def test_flow_runs_both_ways(network):
    """The flow back in a clip is the flow ahead in the clip reversed."""
    _, unet = network
    _, condition = clip(3)
    for size, flow in unet.flows(condition).items():
        mirrored = unet.flows(condition.flip(0))[size]
        torch.testing.assert_close(flow.back.flip(1), mirrored.ahead, rtol=1e-4, atol=1e-4)


def test_clips_in_one_batch_do_not_meet(network):
    kind, unet = network
    pairs = [clip(2, seed=seed) for seed in (0, 1)]
    both = unet(*(torch.cat(parts) for parts in zip(*pairs, strict=True)), LEVEL[kind], frames=2, weights=0.9)
    alone = torch.cat([unet(*pair, LEVEL[kind], weights=0.9) for pair in pairs])
    assert gap(both, alone) < 1e-5


def test_without_temporal_layers(network):
    """Clips of one frame are the image network, frame by frame. Frames of one clip still share the statistics of group normalisation, so
    that they differ from it unless they are alike."""
    kind, unet = network
    x_t, condition = clip(3)
    image = unet(x_t, condition, LEVEL[kind], frames=1, temporal=False)
    alone = torch.cat([unet(x_t[n : n + 1], condition[n : n + 1], LEVEL[kind], temporal=False) for n in range(3)])
    assert gap(image, alone) < 1e-5
    assert gap(unet(x_t, condition, LEVEL[kind], temporal=False), image) > 1e-4
    still = unet(x_t[:1].repeat(3, 1, 1, 1), condition[:1].repeat(3, 1, 1, 1), LEVEL[kind], temporal=False)
    assert gap(still, image[:1].repeat(3, 1, 1, 1)) < 1e-5


def test_a_single_frame(network):
    """A window of one frame runs through all temporal layers, which see nothing but that frame."""
    kind, unet = network
    x_t, condition = clip(1)
    found = unet(x_t, condition, LEVEL[kind])
    assert found.isfinite().all()
    assert gap(found, unet(x_t, condition, LEVEL[kind], pixels=1)) < 1e-5
    assert gap(found, unet(x_t, condition, LEVEL[kind], temporal=False)) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_video_network_starts_as_its_image_network(kind):
    """New temporal layers are the identity, whatever the spatial weights: each ends in zeros, and a gate of 1/2 is between equals."""
    build, config = SMALL[kind]
    new, known = build(config).eval(), seeded(kind).state_dict()
    split = split_parameters(new)
    new.load_state_dict({name: value if name in split.temporal else known[name] for name, value in new.state_dict().items()})
    gates = [module for module in new.modules() if isinstance(module, Gated)]
    assert all(not parameter.any() for gate in gates for parameter in gate.emb_layers.parameters())
    assert bool(gates) == (kind == "bicubic")
    x_t, condition = clip(3)
    assert new(x_t, condition, LEVEL[kind]).equal(new(x_t, condition, LEVEL[kind], temporal=False))


def test_every_frame_has_its_own_level(network):
    kind, unet = network
    x_t, condition = clip(2)
    levels = LEVEL[kind] * torch.tensor([1.0, 0.5])
    found = unet(x_t, condition, levels, frames=1, temporal=False)
    alone = torch.cat([unet(x_t[n : n + 1], condition[n : n + 1], levels[n], temporal=False) for n in range(2)])
    assert gap(found, alone) < 1e-5
    assert gap(found, unet(x_t, condition, levels.flip(0), frames=1, temporal=False)) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision(kind):
    """bf16 features stay near float32's; what must not be rounded is not."""
    unet = seeded(kind)
    x_t, condition = clip(3)
    exact, flows = unet(x_t, condition, LEVEL[kind]), unet.flows(condition)
    unet.halved(torch.bfloat16)
    kept = [module for module in unet.modules() if isinstance(module, SPyNet | ClipNorm)]
    assert all(parameter.dtype == torch.float32 for module in kept for parameter in module.parameters())
    assert all(flow.ahead.equal(unet.flows(condition)[size].ahead) for size, flow in flows.items())
    found = unet(x_t, condition, LEVEL[kind])
    assert found.dtype == torch.float32
    assert 1e-3 < gap(found, exact) < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_all_but_the_flow_network(kind):
    """In pieces as well as at once, with the same gradients."""
    unet = seeded(kind)
    x_t, condition = clip(3)
    gradients = []
    for pixels in (None, SIDE * SIDE):
        unet.zero_grad()
        unet(x_t, condition, LEVEL[kind], weights=0.9, pixels=pixels).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in unet.named_parameters()})
    split = split_parameters(unet)
    assert all(gradients[0][name] is None for name in split.flow)
    trained = (*split.spatial, *split.temporal)
    for name in trained:
        assert gradients[0][name] is not None, name
        if not name.endswith("k_linear.bias"):  # the same for all keys, so softmax does not see it
            assert gradients[0][name].any(), name
    at_once, in_pieces = (torch.cat([found[name].flatten() for name in trained]) for found in gradients)
    assert gap(in_pieces, at_once) < 2e-2  # bilinear sampling has kinks: rounding moves a gradient further than a result


def test_frames_that_do_not_fit(network):
    kind, unet = network
    x_t, condition = clip(3)
    with pytest.raises(ValueError, match="multiples of 2"):
        unet(x_t[..., :-1], condition[..., :-1], LEVEL[kind])
    with pytest.raises(ValueError, match="one shape"):
        unet(x_t, condition[:2], LEVEL[kind])
    with pytest.raises(ValueError, match="clips of 2"):
        unet(x_t, condition, LEVEL[kind], frames=2)


def test_channels_last_reaches_all_convolutions(network):
    """Also those over time, where torch's own `to` refuses."""
    kind, unet = network
    x_t, condition = clip(2)
    before = unet(x_t, condition, LEVEL[kind])
    assert unet.to(memory_format=torch.channels_last) is unet
    wide = [parameter for parameter in unet.parameters() if parameter.ndim >= 4]
    forms = {4: torch.channels_last, 5: torch.channels_last_3d}
    assert all(parameter.is_contiguous(memory_format=forms[parameter.ndim]) for parameter in wide)
    assert gap(unet(x_t, condition, LEVEL[kind]), before) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_memory_in_pieces_is_what_is_announced(kind):
    """working_bytes() is not below the peak of the tensors in one call at 512 x 512 in bf16, nor twice as much; counted on the meta device."""
    spec = importlib.util.spec_from_file_location("flair_network", Path(__file__).resolve().parents[2] / "benchmarks" / "cost" / "flair_network.py")
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = benchmark
    spec.loader.exec_module(benchmark)
    build, config = SMALL[kind]
    deep = dataclasses.replace(config, multipliers=(*config.multipliers, *config.multipliers[-1:] * 3), attention=frozenset({4}))
    with torch.device("meta"):
        unet = build(deep).halved(torch.bfloat16)
    peak = benchmark.peak_on_meta(unet, 4, 512, 512 * 512)
    assert peak <= unet.working_bytes(4, 512, 512) < 2 * peak
