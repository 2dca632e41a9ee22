from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_protocol.versions import is_downgrade, version_key

VERSIONS = st.from_regex(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}", fullmatch=True)


@pytest.mark.parametrize(
    "ordered",
    [
        # Semantic Versioning 2.0.0, section 11
        ["1.0.0", "2.0.0", "2.1.0", "2.1.1"],
        ["1-alpha", "1-alpha.1", "1-alpha.beta", "1-beta", "1-beta.2", "1-beta.11", "1-rc.1", "1"],
        ["0.9", "0.10", "1", "1.0.1", "1.1"],
        ["1.0.0", "1.0.0+2", "1.0.0+10", "1.0.1"],
        ["2024.12.31", "2025.1.1"],
    ],
)
def test_the_order(ordered: list[str]) -> None:
    for older, newer in pairwise(ordered):
        assert is_downgrade(older, newer) and not is_downgrade(newer, older)


def test_zeros_at_the_end_of_the_numbers_say_nothing() -> None:
    assert version_key("1") == version_key("1.0") == version_key("1.0.0")
    assert is_downgrade("1-rc", "1.0.0")


@given(VERSIONS, VERSIONS, VERSIONS)
def test_it_is_an_order(a: str, b: str, c: str) -> None:
    assert not is_downgrade(a, a)
    assert not (is_downgrade(a, b) and is_downgrade(b, a))
    if is_downgrade(a, b) and is_downgrade(b, c):
        assert is_downgrade(a, c)
