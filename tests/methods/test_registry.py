"""Methods by name and their settings as text."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fvr.methods.flair.options import PRESETS, FlairOptions
from fvr.methods.flair.sampler import FlairRestorer
from fvr.methods.registry import build_restorer, methods
from fvr.options import parse_settings
from fvr.physics import parse


def test_flair_needs_nothing():
    restorer = build_restorer("flair")
    assert isinstance(restorer, FlairRestorer) and restorer.options == FlairOptions() and restorer.name == "flair"


@pytest.mark.parametrize("name", methods())
def test_every_method_says_what_it_is(name):
    spec = methods()[name]
    assert spec.name == name and spec.summary.endswith(".") and spec.options() == spec.options()


def test_settings_reach_the_options():
    text = {
        "steps": "12",
        "rho": "0.3",
        "data_consistency": "off",
        "consistency": "pinv",
        "noise_level": "7.5",
        "shared_noise": "yes",
        "overlap": " 2 ",
    }
    options = build_restorer("flair", settings=text).options
    assert options == FlairOptions(steps=12, rho=0.3, data_consistency=False, consistency="pinv", noise_level=7.5, shared_noise=True, overlap=2)


def test_a_preset_comes_first_whatever_the_order():
    assert build_restorer("flair", settings={"rho": "0.1", "preset": "x16"}).options.rho == 0.1
    assert build_restorer("flair", settings={"preset": "x16"}).options == PRESETS["x16"]


def test_an_optional_number_can_be_emptied():
    options = build_restorer("flair", settings={"preset": "gaussian-demo", "noise_level": "none"}).options
    assert options.noise_level is None


@given(st.sampled_from([field.name for field in fields(FlairOptions)]), st.data())
def test_any_valid_value_survives_being_written_down(name, data):
    choices = {float: st.floats(0.1, 0.9), int: st.integers(4, 9), bool: st.booleans()}
    current = getattr(FlairOptions(), name)
    value = data.draw(choices[type(current)]) if type(current) in choices else current
    assert getattr(parse_settings(FlairOptions(), {name: str(value)}, "flair"), name) == value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": "3"}, r"flair has no setting 'step', did you mean 'steps'\? choose from preset, steps, start"),
        ({"colour": "3"}, "flair has no setting 'colour'; choose from preset, steps"),
        ({"steps": "many"}, "flair: steps is a whole number, got 'many'"),
        ({"steps": "2.5"}, "flair: steps is a whole number"),
        ({"rho": "half"}, "flair: rho is a number, got 'half'"),
        ({"rho": "nan"}, "flair: rho must lie between 0 and 1, got nan"),
        ({"rho": "7"}, "flair: rho must lie between 0 and 1, got 7.0"),
        ({"enhance": "maybe"}, "flair: enhance is on or off, got 'maybe'"),
        ({"overlap_mode": "cut"}, "flair: overlap_mode must be one of blend, impose, got 'cut'"),
        ({"window": "3", "overlap": "3"}, "flair: overlap must lie between 0 and 2, got 3; lower it, or raise window"),
        ({"preset": "x3"}, "flair has no preset 'x3'; choose one of default, embedded, x4"),
    ],
)
def test_wrong_settings_are_one_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        build_restorer("flair", settings=settings)


@pytest.mark.parametrize("name", ["keep", "dicface", "codeformer", "per-frame"])
def test_only_flair_takes_a_degradation(name):
    with pytest.raises(ValueError, match=f"{name} does not use a degradation, got 'Gaussian blur"):
        build_restorer(name, degradation=parse("gaussian_blur(sigma=2)"))


def test_interdependent_settings_are_checked_together():
    assert build_restorer("flair", settings={"overlap": "12", "window": "20"}).options.overlap == 12


def test_unknown_methods_list_the_known():
    with pytest.raises(ValueError, match=r"no method is called 'flare'; choose one of blind, flair"):
        build_restorer("flare")


def test_weights_are_not_quietly_ignored(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        build_restorer("flair", weights=tmp_path / "flair.pt")
    (tmp_path / "flair.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"flair\.pt is empty"):
        build_restorer("flair", weights=tmp_path / "flair.pt")
