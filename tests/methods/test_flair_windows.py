"""Windows over a stream: every frame once, in order, whatever the chunks; and how neighbours meet."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fvr.methods.flair.windows import WindowStream, blend_overlap


def stream(window, overlap, seen):
    def sample(frames, first, shared):
        seen.append((first, len(frames), 0 if shared is None else len(shared)))
        return blend_overlap(frames + 100 * len(seen), shared, "blend")

    return WindowStream(window, overlap, sample)


def run(window, overlap, frames, chunks):
    seen, out, at, held = [], [], 0, 0
    windows = stream(window, overlap, seen)
    for chunk in chunks:
        out += windows.push(frames[at : at + chunk])
        at += chunk
        held = max(held, min(at, len(frames)) - sum(map(len, out)))
    out += windows.close()
    return torch.cat(out), seen, held


@settings(max_examples=80, deadline=None)
@given(data=st.data(), window=st.integers(1, 12), length=st.integers(1, 60))
def test_chunks_do_not_matter(data, window, length):
    overlap = data.draw(st.integers(0, window - 1))
    frames = torch.arange(length, dtype=torch.float64).view(-1, 1, 1, 1)
    whole, seen, _ = run(window, overlap, frames, [length])
    chunks = data.draw(st.lists(st.integers(1, length), min_size=length, max_size=length))
    pieces, seen_again, held = run(window, overlap, frames, chunks)
    assert torch.equal(whole, pieces) and len(whole) == length and seen == seen_again
    assert held <= window - 1


def test_windows_of_ten_with_overlap_three():
    """FLAIR's: step 7, the last one shorter but with at least one frame of its own."""
    _, seen, _ = run(10, 3, torch.zeros(25, 1, 1, 1), [25])
    assert seen == [(0, 10, 0), (7, 10, 3), (14, 10, 3), (21, 4, 3)]
    _, seen, _ = run(10, 3, torch.zeros(10, 1, 1, 1), [10])
    assert seen == [(0, 10, 0)]


def test_blending_slides_from_the_old_window_to_the_new():
    old, new = torch.zeros(3, 1, 1, 1), torch.ones(5, 1, 1, 1)
    assert blend_overlap(new, old, "blend").flatten().tolist() == [0.25, 0.5, 0.75, 1, 1]
    assert blend_overlap(new, old, "impose").flatten().tolist() == [0, 0, 0, 1, 1]
    assert blend_overlap(new, None, "blend") is new


def test_equal_windows_meet_without_a_seam():
    frames = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for mode in ("blend", "impose"):
        torch.testing.assert_close(blend_overlap(frames, frames[:3], mode), frames)
