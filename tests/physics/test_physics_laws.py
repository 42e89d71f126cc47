"""Laws that every operator obeys, on clips of odd sizes."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from fvr.physics import Blur, Composition, Degradation, Inpaint, degradation

SIZE = (11, 14)


def normal(shape, rng):
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def test_adjoint(linear: Degradation, rng) -> None:
    """<A x, y> = <x, A^T y>."""
    x = normal((4, 3, *SIZE), rng)
    image = linear.forward(x)
    y = normal(image.shape, rng)
    assert_close((image * y).sum(), (x * linear.adjoint(y, SIZE)).sum())


def test_forward_is_linear(linear: Degradation, rng) -> None:
    a, b = normal((2, 4, 3, *SIZE), rng)
    assert linear.linear
    assert_close(linear.forward(2 * a - 0.5 * b), 2 * linear.forward(a) - 0.5 * linear.forward(b))


def test_pseudo_inverse_explains_the_observation(linear: Degradation, rng) -> None:
    """A A+ y = y for y in the range of A; to 1 % where A is iterated on and cuts almost to nothing (a line at full resolution)."""
    y = linear.forward(normal((4, 3, *SIZE), rng))
    tolerance = 1e-2 if _hopeless(linear) else 1e-6
    assert_close(linear.forward(linear.pinv(y, SIZE)), y, atol=tolerance, rtol=tolerance)


def test_pseudo_inverse_is_the_smallest_explanation(linear: Degradation, rng) -> None:
    """|A+ A x| <= |x|, and what A+ A takes off x is orthogonal to it."""
    x = normal((4, 3, *SIZE), rng)
    kept = linear.pinv(linear.forward(x), SIZE)
    assert kept.norm() <= x.norm() * (1 + 1e-6)
    assert (kept * (x - kept)).sum().abs() <= 1e-4 * x.square().sum()


def test_pseudo_inverse_is_linear(operator: Degradation, clip, rng) -> None:
    """FLAIR's rule A+ (A x - y) = A+ A x - A+ y holds for every operator, codecs included."""
    image = operator.forward(clip)
    y = image + 0.1 * normal(image.shape, rng).to(image)
    together = operator.pinv(image - y, SIZE, 1e-2)
    assert_close(together, operator.pinv(image, SIZE, 1e-2) - operator.pinv(y, SIZE, 1e-2), atol=1e-7, rtol=1e-5)


def test_pseudo_inverse_of_an_impossible_observation(linear: Degradation, rng) -> None:
    """y - A A+ y is no longer visible to A^T, for any y: nothing explains y better (and nothing is made worse where A is hopeless)."""
    y = normal(linear.forward(torch.zeros(4, 3, *SIZE, dtype=torch.float64)).shape, rng)
    back = linear.pinv(y, SIZE)
    missed = y - linear.forward(back)
    assert missed.norm() <= y.norm()
    if not _hopeless(linear):
        assert linear.adjoint(missed, SIZE).norm() <= 1e-6 * linear.adjoint(y, SIZE).norm()


@pytest.mark.parametrize("damping", [0.03, 1.0])
def test_damped_inverse_is_the_dense_one(linear: Degradation, damping: float, rng, dense) -> None:
    """A^T (A A^T + d I)^-1 y, by linear algebra on a matrix built column by column."""
    shape = (4, 3, 6, 7) if _fits(linear, (6, 7)) else (4, 3, *SIZE)
    if shape[-2:] == SIZE:
        pytest.skip("the mask has its own size; its damped inverse is checked in test_masks_divide")
    matrix = dense(linear, shape)
    y = linear.forward(normal(shape, rng))
    small = torch.linalg.solve(matrix @ matrix.mT + damping * torch.eye(len(matrix), dtype=torch.float64), y.flatten())
    assert_close(linear.pinv(y, shape[-2:], damping).flatten(), matrix.mT @ small, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_masks_divide(damping: float, rng) -> None:
    operator = Inpaint(torch.tensor([[1, 0], [0, 1]]))
    y = normal((2, 3, 2, 2), rng)
    assert_close(operator.pinv(y, damping=damping), y * torch.eye(2, dtype=y.dtype) / (1 + damping))


def test_undamped_inverse_is_the_dense_one_where_well_conditioned(linear: Degradation, rng, dense) -> None:
    shape = (4, 3, 6, 7)
    if not _fits(linear, (6, 7)):
        pytest.skip("the mask has its own size")
    matrix = dense(linear, shape)
    singular = torch.linalg.svdvals(matrix)
    lost = singular < 1e-10 * singular[0]
    if singular[~lost].min() < 1e-3 * singular[0]:
        pytest.skip("ill-conditioned: covered by the laws of the pseudo-inverse")
    y = linear.forward(normal(shape, rng))
    expected = torch.linalg.pinv(matrix, rtol=1e-9) @ y.flatten()
    assert_close(linear.pinv(y, shape[-2:]).flatten(), expected, atol=1e-6, rtol=1e-6)


def test_composition_applies_the_right_one_first(linear: Degradation, clip, rng) -> None:
    """(A B) x = A (B x) and (A B)^T y = B^T (A^T y)."""
    inner = degradation("gaussian_blur", sigma=0.7)
    both = linear @ inner
    assert_close(both.forward(clip), linear.forward(inner.forward(clip)))
    y = normal(both.forward(clip).shape, rng)
    assert_close(both.adjoint(y, SIZE), inner.adjoint(linear.adjoint(y, SIZE), SIZE))
    assert both.output_size(SIZE) == y.shape[-2:]
    assert both.factor == linear.factor * inner.factor
    assert both.chain == (*linear.chain, inner)


def test_composition_is_associative(clip) -> None:
    a, b, c = degradation("average_pool", factor=2), degradation("gaussian_blur", sigma=1), degradation("temporal_blur", width=3)
    left, right = (a @ b) @ c, a @ (b @ c)
    assert isinstance(left, Composition) and isinstance(right, Composition)
    assert left.chain == right.chain
    y = left.forward(clip)
    assert_close(y, right.forward(clip))
    assert_close(left.pinv(y, SIZE), right.pinv(y, SIZE))


def test_default_size_is_a_multiple(operator: Degradation, rng) -> None:
    """Without `size`, x has `factor` times the size of y."""
    size = (2 * operator.factor, 3 * operator.factor)
    if not _fits(operator, size):
        pytest.skip("the mask has its own size")
    y = torch.rand((4, 3, 2, 3), generator=rng, dtype=torch.float64)
    assert_close(operator.adjoint(y), operator.adjoint(y, size))
    assert_close(operator.pinv(y, damping=0.1), operator.pinv(y, size, 0.1))
    assert operator.output_size(size) == (2, 3)


def test_wrong_size_is_refused(operator: Degradation) -> None:
    with pytest.raises(ValueError, match="pass the size of the frames"):
        operator.pinv(torch.zeros(4, 3, 11, 14), (200, 300))


def test_a_batch_is_its_members(operator: Degradation, rng) -> None:
    """Two clips at once give what each gives alone, forward and back."""
    clips = torch.rand((2, 4, 3, *SIZE), generator=rng, dtype=torch.float64)
    images = operator.forward(clips)
    assert_close(images, torch.stack([operator.forward(clip) for clip in clips]))
    inverses = operator.pinv(images, SIZE, 0.01)
    assert_close(inverses, torch.stack([operator.pinv(image, SIZE, 0.01) for image in images]))
    assert_close(operator.adjoint(images, SIZE), torch.stack([operator.adjoint(image, SIZE) for image in images]))


def test_frames_do_not_mix_in_space(operator: Degradation, clip) -> None:
    """Operators without a time axis treat (3, H, W) like one frame of (T, 3, H, W)."""
    if operator.mixes_frames:
        pytest.skip("frames depend on one another, or on their place")
    whole = operator.forward(clip)
    assert_close(operator.forward(clip[1]), whole[1])
    assert_close(operator.pinv(whole[1], SIZE, 0.1), operator.pinv(whole, SIZE, 0.1)[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtype_goes_through(operator: Degradation, dtype: torch.dtype, clip) -> None:
    """What comes out has the dtype that went in, and is the float64 result up to that precision."""
    x = clip.to(dtype)
    y = operator.forward(x)
    assert y.dtype == operator.pinv(y, SIZE, 0.1).dtype == operator.adjoint(y, SIZE).dtype == operator.observe(x).dtype == dtype
    if operator.linear:
        tolerance = 20 * torch.finfo(dtype).eps
        assert_close(y.double(), operator.forward(x.double()), atol=tolerance, rtol=tolerance)
        assert_close(operator.pinv(y, SIZE, 0.1).double(), operator.pinv(y.double(), SIZE, 0.1), atol=5 * tolerance + 1e-4, rtol=5 * tolerance)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu(operator: Degradation, clip) -> None:
    x = clip.float()
    y = operator.forward(x)
    assert_close(operator.forward(x.cuda()).cpu(), y, atol=1e-4, rtol=1e-4)
    assert_close(operator.pinv(y.cuda(), SIZE, 0.1).cpu(), operator.pinv(y, SIZE, 0.1), atol=1e-3, rtol=1e-3)
    seeds = [torch.Generator().manual_seed(4) for _ in range(2)]
    assert_close(operator.observe(x.cuda(), seeds[0]).cpu(), operator.observe(x, seeds[1]), atol=1e-3, rtol=1e-3)


def test_observe_is_reproducible(operator: Degradation, clip) -> None:
    """The same seed gives the same sample; another seed another one where there is noise, and none where there is not."""
    first, again, other = (operator.observe(clip, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (operator.noise_level == 0)


def test_input_is_not_changed(operator: Degradation, clip) -> None:
    before = clip.clone()
    y = operator.observe(clip)
    kept = y.clone()
    operator.pinv(y, SIZE)
    assert torch.equal(clip, before) and torch.equal(y, kept)


def test_equal_operators_are_equal(operator: Degradation) -> None:
    """Operators are values: equal to a copy, usable as keys, and their text is one line."""
    import copy

    twin = copy.deepcopy(operator)
    assert twin == operator and hash(twin) == hash(operator)
    assert str(operator) == operator.describe() and "\n" not in str(operator)


def test_gradient_passes(linear: Degradation, rng) -> None:
    """The gradient of |A x|^2 / 2 is A^T A x, also for operators first used inside inference mode (as in ComfyUI)."""
    with torch.inference_mode():
        linear.forward(torch.rand(4, 3, *SIZE, dtype=torch.float64))
    x = normal((4, 3, *SIZE), rng).requires_grad_()
    y = linear.forward(x)
    (0.5 * y.square().sum()).backward()
    assert_close(x.grad, linear.adjoint(y.detach(), SIZE))


def _hopeless(operator: Degradation) -> bool:
    """A line at full resolution with open ends: iterated on, and next to singular."""
    return operator == Blur.motion_line(3, 20)


def _fits(operator: Degradation, size: tuple[int, int]) -> bool:
    return all(getattr(part, "mask", None) is None for part in operator.chain) or size == SIZE


@pytest.mark.parametrize("size", [(11, 14), (16, 16)])
def test_observing_in_steps_is_observing(operator: Degradation, size, monkeypatch) -> None:
    """A clip in steps: the same pixels, noise included, and every frame is told once for each operator."""
    mask = next((part.mask for part in operator.chain if hasattr(part, "mask")), None)
    timed = mask is not None and mask.ndim > 2
    frames = len(mask) if timed else 37
    x = torch.rand((frames, 3, *(size if mask is None else mask.shape[-2:])), generator=torch.Generator().manual_seed(7))
    monkeypatch.setattr("fvr.physics.base.STEP", 3 * 64)
    told: list[int] = []
    y = operator.observe_in_steps(x, torch.Generator().manual_seed(3), told.append)
    assert_close(y, operator.observe(x, torch.Generator().manual_seed(3)), atol=1e-6, rtol=0)
    assert sum(told) == frames * len(operator.chain)
    assert timed or len(told) > len(operator.chain)
