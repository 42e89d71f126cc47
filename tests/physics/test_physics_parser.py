"""The table of kinds, and degradations from text."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fvr.physics import KINDS, Blur, Composition, GaussianNoise, Jpeg, Kind, degradation, parse


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_defaults_are_in_range_and_make_the_operator(kind: Kind) -> None:
    for parameter in kind.parameters:
        assert parameter.read(kind.name, parameter.default) == parameter.default
        assert parameter.advice and (parameter.choices or parameter.low < parameter.high)
    assert degradation(kind.name) == degradation(kind.name, **{parameter.name: parameter.default for parameter in kind.parameters})


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_every_value_a_widget_allows_makes_an_operator(kind: Kind) -> None:
    """Both ends of every range and every choice, one at a time: it builds, and damages a small clip."""
    clip = torch.rand(3, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    for parameter in kind.parameters:
        for value in parameter.choices or (parameter.low, parameter.high):
            y = degradation(kind.name, **{parameter.name: value}).observe(clip, torch.Generator())
            assert y.isfinite().all() and y.shape[:2] == clip.shape[:2]


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_every_value_outside_is_refused(kind: Kind) -> None:
    for parameter in kind.parameters:
        wrong: list[object] = (
            ["nothing", None, True] if parameter.choices else [parameter.low - 1, parameter.high + 1, float("nan"), float("inf"), "two", True]
        )
        for value in [*wrong, *([1.5] if parameter.number is int else [])]:
            with pytest.raises(ValueError, match=parameter.name):
                degradation(kind.name, **{parameter.name: value})


def test_parse_applies_left_first() -> None:
    operator = parse("gaussian_blur(sigma=2, factor=4) + noise(sigma=0.03) + jpeg(quality=70)")
    assert operator.chain == (Jpeg(70), GaussianNoise(0.03), Blur.gaussian(2, factor=4))
    assert isinstance(operator, Composition) and operator.factor == 4 and operator.noise_level == 0.03


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("bicubic", "bicubic(factor=4)"),
        (" jpeg( quality = 60 ) ", "jpeg"),
        ("gaussian_blur(angle=-30, boundary=circular)", "gaussian_blur(angle=-30, boundary='circular')"),
        ("camera_noise(iso=800)", "camera_noise(iso='800')"),
        ("noise(sigma=1)", "noise(sigma=1.0)"),
        ("bicubic + (noise + jpeg)", "bicubic + noise + jpeg"),
    ],
)
def test_spellings(text: str, same: str) -> None:
    assert parse(text).chain == parse(same).chain


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "reads like"),
        ("gaussian_blur(2)", "reads like"),
        ("gaussian_blur(sigma=2", "reads like"),
        ("noise - jpeg", "reads like"),
        ("__import__('os').system('x')", "reads like"),
        ("noise(**{})", "reads like"),
        ("noise(sigma=[1])", "reads like"),
        ("gausian_blur", "did you mean 'gaussian_blur'"),
        ("noise(sgma=1)", "did you mean 'sigma'"),
        ("grayscale(sigma=1)", "it takes none"),
        ("noise(sigma=2)", "between 0 and 1"),
        ("noise(sigma=-1)", "between 0 and 1"),
        ("h264(preset=quick)", "one of ultrafast"),
        ("bicubic(factor=2.5)", "whole number"),
        ("bicubic(factor=1)", "between 2 and 16"),
    ],
)
def test_errors_are_one_helpful_sentence(text: str, says: str) -> None:
    with pytest.raises(ValueError) as error:
        parse(text)
    assert says in str(error.value) and "\n" not in str(error.value)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="noisejpgbcu+(),=.0123456789-'* \n\x00", max_size=30))
def test_any_text_parses_or_is_refused_cleanly(text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert "\n" not in str(error)


def test_descriptions_say_what_happens() -> None:
    assert str(parse("gaussian_blur(sigma=2, factor=4) + noise(sigma=0.03)")) == "Gaussian blur sigma 2 px, down x4, noise 0.03"
    assert str(parse("bicubic(factor=8) + jpeg(quality=40)")) == "Bicubic down x8, JPEG quality 40"
