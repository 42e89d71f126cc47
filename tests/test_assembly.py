"""Which method `auto` takes, and that it says why."""

import pytest

from fvr import assembly
from fvr.assembly import AUTO, chosen_method
from fvr.models import embedded
from fvr.nodes.restorers import LoadFaceRestorer, restorer_file


@pytest.fixture(autouse=True)
def nothing_published(monkeypatch):
    monkeypatch.setattr(assembly, "find_weights", lambda name: None)


def test_damage_that_is_described_goes_to_flair():
    assert chosen_method(True)[0] == "flair" and "described" in chosen_method(True)[1]


def test_damage_that_nobody_described_goes_to_blind():
    assert chosen_method(False)[0] == "blind" and "not described" in chosen_method(False)[1]


def test_published_keep_weights_are_taken_where_they_are(monkeypatch, tmp_path):
    monkeypatch.setattr(assembly, "find_weights", lambda name: tmp_path / "keep.pth" if name == "keep" else None)
    assert chosen_method(False)[0] == "keep" and chosen_method(True)[0] == "flair"


@pytest.mark.parametrize(
    ("named", "method"),
    [*((title, method) for method, title in assembly.EMBEDDED.items()), ("none", "flair")],
)
def test_weights_that_are_named_decide(named, method):
    if named.startswith("embedded") and named not in embedded.listed(embedded.RESTORERS | embedded.PRIORS):
        pytest.skip(f"{named} is not in this checkout")
    name, why = chosen_method(False, named)
    assert name == method and why


def test_the_loader_offers_auto_first():
    combo = next(one for one in LoadFaceRestorer.define_schema().inputs if one.id == "model")
    assert combo.options[0] == AUTO and restorer_file(AUTO) == embedded.FOLDER / embedded.BLIND
