"""The extra `[torch]` takes what these tests run with."""

from __future__ import annotations

from tests.converter.extras import outside_of_bounds


def test_what_is_installed_is_within_the_bounds_of_the_extra() -> None:
    assert outside_of_bounds("torch") == []
