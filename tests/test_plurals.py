from __future__ import annotations

import pytest

from fvr.plurals import counted


@pytest.mark.parametrize(
    ("count", "words", "said"),
    [(1, ("frame",), "1 frame"), (0, ("frame",), "0 frames"), (1240, ("frame",), "1,240 frames"), (2, ("person", "people"), "2 people")],
)
def test_a_count_takes_the_noun_it_needs(count, words, said):
    assert counted(count, *words) == said
