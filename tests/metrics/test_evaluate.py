"""A whole clip measured: what is there, what is left out, and that the parts are what the pieces say."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from helpers.moving_texture import sliding

from fvr.metrics.evaluate import FaceLandmarks, evaluate
from fvr.metrics.fidelity import psnr, ssim
from fvr.metrics.no_reference import SCALES
from fvr.metrics.plot import COLUMNS, PANEL_HEIGHT, plot
from fvr.metrics.registry import FACE, MEASURES
from fvr.metrics.report import Report, summarised
from fvr.metrics.temporal import mean_warping_error
from fvr.metrics.temporal_profile import BAR, column_over_time
from fvr.physics import AveragePool, GaussianNoise, TemporalBlur

FRAMES = 6


@pytest.fixture(scope="module")
def truth():
    return sliding(FRAMES)


@pytest.fixture(scope="module")
def result(truth):
    """Softer than the truth, and lit differently in every other frame."""
    soft = F.avg_pool2d(truth, 3, 1, 1, count_include_pad=False)
    return (soft + 0.04 * (torch.arange(FRAMES) % 2).view(-1, 1, 1, 1)).clamp(0, 1)


def face(t):
    """Seen in all frames but the fourth."""
    mask = torch.zeros(96, 128)
    mask[20:70, 30:90] = 1
    return None if t == 3 else mask


def person(offset=0.0, **changes):
    points = torch.tensor([[40.0, 40], [80, 40], [60, 55], [45, 65], [75, 65]]).expand(FRAMES, 5, 2).clone()
    return FaceLandmarks(points + offset, points, **changes)


def embed(faces):
    """Mean colours as an identity."""
    return F.normalize(faces.double().mean((2, 3)), dim=-1)


@pytest.fixture(scope="module")
def everything(truth, result):
    operator = AveragePool(2)
    return evaluate(
        result,
        truth,
        operator.forward(truth) + 0.01,
        degradation_forward=operator.forward,
        noise_level=0.02,
        region=face,
        people=[person(torch.tensor([3.0, 4.0]), scale=2.0)],
        embed=embed,
    )


def test_every_measure_has_a_column(everything):
    expected = {m.key for m in MEASURES} | {m.key + FACE for m in MEASURES if m.on_face}
    assert set(everything.summary) == expected - {key + suffix for key in ("lpips", *SCALES) for suffix in ("", FACE)}
    assert all(len(values) == FRAMES for values in everything.per_frame.values())
    assert set(everything.summary) - set(everything.per_frame) == {"akd_deviation", "identity_deviation"}


def test_the_report_equals_the_single_measures(everything, truth, result):
    assert everything.per_frame["psnr"] == pytest.approx(psnr(result, truth).tolist())
    assert everything.summary["ssim"] == pytest.approx(ssim(result, truth).mean().item())
    error = mean_warping_error(result, truth)
    assert everything.summary["warping_error"] == pytest.approx(error.rgb_sum)
    assert everything.summary["warping_error_per_value"] == pytest.approx(error.per_value)
    assert everything.summary["warping_error_all"] == pytest.approx(error.over_all)
    assert everything.per_frame["warping_error"][0] is None
    mask = face(0)[None, None]
    assert everything.per_frame["psnr_face"][0] == pytest.approx(psnr(result[:1], truth[:1], region=mask).item())
    assert everything.per_frame["psnr_face"][3] is None and everything.per_frame["warping_error_face"][4] is None
    assert everything.per_frame["psnr"][3] is not None


def test_known_light_landmarks_and_residual(everything, truth):
    """Light jumps by 0.04; landmarks are 5 frame pixels off, 10 of the crop; y is 0.01 brighter than A of the truth."""
    assert everything.summary["flicker_added"] == pytest.approx(0.04 * 255, rel=0.1)
    assert everything.summary["akd"] == pytest.approx(10)
    assert everything.summary["akd_deviation"] == pytest.approx(0, abs=1e-6) and everything.summary["tlme"] == pytest.approx(0, abs=1e-5)
    assert everything.summary["sharpness_ratio"] < 0.7
    exact = evaluate(truth, None, AveragePool(2).forward(truth) + 0.01, degradation_forward=AveragePool(2).forward, noise_level=0.02)
    assert exact.per_frame["residual_in_noise"] == pytest.approx([0.5] * FRAMES, rel=1e-3)
    assert exact.summary["residual_rms"] == pytest.approx(2.55, rel=1e-3)
    assert exact.summary["residual_psnr"] == pytest.approx(40, abs=0.01)


def test_equal_clips_differ_in_nothing(truth):
    report = evaluate(truth, truth, region=face, people=[person()], embed=embed)
    assert report.summary["psnr"] == math.inf and report.summary["ssim"] == pytest.approx(1)
    for key in ("flicker_added", "flicker_added_face", "akd", "akd_deviation", "tlme", "identity_deviation"):
        assert report.summary[key] == pytest.approx(0, abs=1e-9), key
    assert report.summary["identity"] == pytest.approx(1) and report.summary["sharpness_ratio"] == 1
    assert json.loads(report.as_json())["summary"]["psnr"] == "inf" and "inf" in report.table()


def test_without_a_reference_there_are_flicker_and_sharpness(truth, result):
    assert set(evaluate(result).summary) == {
        "flicker", "sharpness", "tenengrad", "warping_error", "warping_error_per_value", "warping_error_all"
    }  # fmt: skip
    assert "the restored clip's own" in evaluate(result).table()
    assert "the restored clip's own" not in evaluate(result, observation=truth).table()


def test_the_flow_is_that_of_the_chosen_clip(truth):
    still = truth[:1].expand_as(truth)
    by = {motion: evaluate(truth, truth, still, motion=motion).summary["warping_error"] for motion in ("reference", "observation", "auto")}
    assert by["auto"] == by["reference"] < 0.5 * by["observation"]
    small = F.avg_pool2d(truth, 2)
    assert evaluate(truth, observation=small).summary["warping_error"] < 0.5 * by["observation"]


def test_every_second_frame_has_the_figures_of_the_full_evaluation(truth, result, everything):
    sparse = evaluate(result, truth, every=2, people=[person()], embed=embed)
    for key in ("flicker", "warping_error", "flicker_added"):
        assert [t for t, value in enumerate(sparse.per_frame[key]) if value is not None] == [2, 4]
        assert sparse.per_frame[key][2::2] == pytest.approx(everything.per_frame[key][2::2])
    assert [value is None for value in sparse.per_frame["identity"]] == [False, True] * 3
    assert [value is None for value in sparse.per_frame["vidd"]] == [True, True, False, True, False, True]
    assert sparse.per_frame["vidd"][2::2] == pytest.approx(evaluate(result, truth, people=[person()], embed=embed).per_frame["vidd"][2::2])
    assert sparse.per_frame["psnr"] == everything.per_frame["psnr"]


def test_the_distance_of_an_identity_from_the_frame_before(truth):
    """A face that is red, red, green, green, ...: embeddings that stand at right angles are the root of 2 apart; nothing is taken across a cut."""
    red, green = (torch.eye(3)[n].view(1, 3, 1, 1).expand(1, 3, *truth.shape[-2:]) for n in (0, 1))
    report = evaluate(torch.cat([red, red, green, green, red, red]), truth, people=[person()], embed=embed, cuts=[4])
    assert report.per_frame["vidd"] == [None, pytest.approx(0), pytest.approx(2**0.5), pytest.approx(0), None, pytest.approx(0)]
    assert report.summary["vidd"] == pytest.approx(2**0.5 / 4)


def test_temporal_measures_skip_cuts(truth, result):
    report = evaluate(result, truth, cuts=[3], people=[person()])
    assert report.per_frame["flicker"][3] is None and report.per_frame["tlme"][3] is None and report.per_frame["akd"][3] is not None
    first, second = evaluate(result[:3], truth[:3]), evaluate(result[3:], truth[3:])
    halves = [*first.per_frame["flicker"], *second.per_frame["flicker"]]
    assert report.per_frame["flicker"] == halves


def test_a_temporal_operator_gets_the_whole_clip(truth):
    blur = GaussianNoise(0.05) @ TemporalBlur(3)
    exact = evaluate(truth, None, blur.forward(truth), degradation_forward=blur.forward, noise_level=0.05, whole_clip=True)
    assert exact.summary["residual_rms"] == pytest.approx(0, abs=1e-4)
    alone = evaluate(truth, None, blur.forward(truth), degradation_forward=blur.forward)
    assert alone.summary["residual_rms"] > 1 and "residual_in_noise" not in alone.summary


def test_clips_are_read_a_few_frames_at_a_time(truth, result, everything):
    """A clip that gives frames one by one, and complains when somebody goes far back."""

    class OneByOne:
        def __init__(self, frames):
            self.frames, self.last = frames, 0

        def __len__(self):
            return len(self.frames)

        def __getitem__(self, t):
            assert t >= self.last - 1 or t == 0
            self.last = max(t, self.last)
            return self.frames[t]

    ticks = []
    report = evaluate(OneByOne(result), OneByOne(truth), on_frame=ticks.append)
    assert report.per_frame["flicker_added"] == everything.per_frame["flicker_added"] and report.per_frame["ssim"] == everything.per_frame["ssim"]
    assert sum(ticks) == FRAMES


REFUSED = [
    ({"reference": slice(4)}, "the restored clip has 6 frames and the reference 4"),
    ({"observation": slice(5)}, "the restored clip has 6 frames and the observation 5"),
    ({"reference": "small"}, "restored frames are 128 x 96 and the reference 64 x 48"),
    ({"degradation_forward": AveragePool(2).forward}, "without the observation"),
    ({"observation": slice(6), "degradation_forward": AveragePool(2).forward}, "under the degradation the restored frames become"),
    ({"every": 0}, "every is 1 or more"),
    ({"noise_level": -0.1}, "noise level is 0 or more"),
    ({"motion": "reference"}, "from the reference, which is not given"),
    ({"motion": "sideways"}, "got 'sideways'"),
]


@pytest.mark.parametrize(("given", "sentence"), REFUSED)
def test_what_does_not_fit_is_refused_in_a_sentence(given, sentence, truth, result):
    clips = {key: truth[value] if isinstance(value, slice) else value for key, value in given.items()}
    if "small" in given.values():
        clips["reference"] = truth[..., ::2, ::2]
    with pytest.raises(ValueError, match=sentence):
        evaluate(result, **clips)


def test_a_single_frame_has_no_temporal_measures(truth):
    report = evaluate(truth[:1], truth[:1])
    assert "flicker" not in report.summary and report.summary["ssim"] == pytest.approx(1)


def test_the_table_and_the_json_say_the_same(everything):
    said = json.loads(everything.as_json())
    assert said["summary"]["akd"] == pytest.approx(10) and said["about"]["motion_from"] == "reference"
    assert said["per_frame"]["psnr_face"][3] is None and said["units"]["akd"] == "px of the 512 crop"
    rows = [line for line in everything.table().splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1 and len({row.count("|") for row in rows}) == 1
    (akd,) = [row for row in rows if "AKD)" in row and "sigma" not in row]
    assert [cell.strip() for cell in akd.strip("|").split("|")] == ["landmark distance (AKD)", "10", "", "px of the 512 crop", "low"]
    assert "face" not in evaluate(sliding(2)).table().splitlines()[0]


def test_means_leave_out_what_is_missing():
    assert summarised({"akd": [None, 1.0, 3.0]}) == {"akd": 2.0, "akd_deviation": 1.0}
    assert summarised({"psnr": [None, None], "ssim": [0.5, None]}) == {"psnr": None, "ssim": 0.5}
    assert summarised({"psnr": [30.0, math.inf]})["psnr"] == math.inf


def blue(drawn):
    """What a plot has of blue lines, below titles and legends."""
    found = drawn[2] - drawn[0] > 0.15
    found[:24] = False
    return found


def test_the_plot_leaves_gaps_for_missing_values():
    """A line that rises from the lower left to the upper right corner of its panel, with a gap in the middle."""
    series = [float(t) if not 40 <= t < 60 else None for t in range(100)]
    drawn = plot(Report({"psnr": series}, summarised({"psnr": series})))
    assert drawn.shape == (3, PANEL_HEIGHT, COLUMNS * 480) and drawn.min() >= 0 and drawn.max() <= 1
    rows, columns = blue(drawn).nonzero().T
    assert rows[columns.argmin()] > 120 and rows[columns.argmax()] < 40
    shown = columns.unique()
    assert 0.18 < float(shown.diff().max()) / int(shown.max() - shown.min()) < 0.24  # from frame 39 to 60 of 99
    one_each = blue(plot(Report({"psnr": [1.0, None, 2.0, None, 3.0]}, {"psnr": 2.0})))
    assert one_each.any(0).nonzero()[:, 0].diff().max() == 1  # sampled at a steady distance: one line
    assert plot(Report({}, {})).mean() == 1


def test_a_column_over_time_is_that_column():
    clip = torch.rand(5, 3, 40, 60, generator=torch.Generator().manual_seed(0))
    sheet = column_over_time({"a": clip, "b": clip[..., ::2, ::2]}, 17)
    top = sheet[:, BAR : BAR + 40]
    assert sheet.shape[1] == 2 * (BAR + 40)
    torch.testing.assert_close(top[:, :, :17], clip[2][:, :, :17], atol=1 / 255, rtol=0)
    assert (top[0, :, 17] > 0.85).all() and (top[1, :, 17] < 0.2).all()
    beside = top[:, :, 64:]
    wide = beside.shape[-1] // 5
    for t in range(5):
        torch.testing.assert_close(beside[:, :, wide * t : wide * (t + 1)], clip[t][:, :, 17:18].expand(3, 40, wide), atol=1 / 255, rtol=0)


def test_every_frame_of_every_slice_is_counted_and_may_be_the_last():
    clip = torch.rand(3000, 3, 4, 6)
    done: list[int] = []
    column_over_time({"a": clip, "b": clip[..., ::2]}, 3, done.append)
    assert sum(done) == 6000 and len(done) == 3000  # every second one is looked at

    def stop(count: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        column_over_time({"a": clip}, 3, stop)


def test_what_is_left_out_is_said():
    one = torch.rand(1, 3, 8, 16)
    notes = " ".join(evaluate(one, one).notes)
    assert "Flicker and warping error were left out" in notes and "the clip has one frame" in notes
    assert "SSIM was left out: its window is 11 x 11 pixels and the frames are 16 x 8" in notes
    some = torch.rand(3, 3, 12, 16)
    assert "no pair of its 3 frames was chosen (every 5)" in " ".join(evaluate(some, every=5).notes)
    with pytest.raises(ValueError, match="at least 3 x 3 pixels, got 2 x 8"):
        evaluate(torch.rand(1, 3, 8, 2))


def test_long_and_tall_clips_stay_small():
    still = torch.rand(1, 3, 1000, 20)
    assert column_over_time({"a": still.expand(5000, 3, 1000, 20)[:3000]}, 3).shape[1:] == (BAR + 720, 14 + 4 + 1500)


def test_columns_and_clips_that_do_not_fit_are_refused(truth):
    with pytest.raises(ValueError, match="columns 0 to 127, got column 128"):
        column_over_time({"a": truth}, 128)
    with pytest.raises(ValueError, match="as many of them"):
        column_over_time({"a": truth, "b": truth[:2]}, 1)
