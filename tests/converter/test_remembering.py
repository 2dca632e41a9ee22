"""Which outputs go in again: found by their names or said by the user, and run so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from autoglm_edge_converter.errors import BadOption
from autoglm_edge_converter.remembering import Link, Remembering, check_links, find_links
from autoglm_edge_converter.tensors import Array, Feed, Port


def ports(*names: str, shape: tuple[int | None, ...] = (1, 8), dtype: str = "float32") -> tuple[Port, ...]:
    return tuple(Port(name, dtype, shape) for name in names)


X, Y = ports("x", shape=(1, 4)), ports("y", shape=(1, 3))


@pytest.mark.parametrize(
    ("inputs", "outputs", "found"),
    [
        (("state",), ("stateN",), ["state=stateN"]),
        (("h0", "c0"), ("hn", "cn"), ["h0=hn", "c0=cn"]),
        (("h_in", "c_in"), ("c_out", "h_out"), ["h_in=h_out", "c_in=c_out"]),
        (
            ("hidden.1", "hidden.2"),
            ("next_hidden.2", "next_hidden.1"),
            ["hidden.1=next_hidden.1", "hidden.2=next_hidden.2"],
        ),
        (("past_memory",), ("present_memory",), ["past_memory=present_memory"]),
        (("left",), ("left_out",), []),  # nothing says that it is remembered
        (("state",), ("state_out", "state_next"), []),  # which one?
        (("state", "initial_state"), ("state_out",), []),
        (("image",), ("statement",), []),
    ],
)
def test_names_that_leave_no_doubt(inputs: Sequence[str], outputs: Sequence[str], found: list[str]) -> None:
    assert [str(link) for link in find_links((*X, *ports(*inputs)), (*ports(*outputs), *Y), None)] == found


def test_what_looks_like_a_state_and_cannot_be_one_is_none() -> None:
    state = ports("state")
    assert find_links((*X, *state), (*Y, *ports("stateN", dtype="float16")), None) == ()
    assert find_links((*X, *state), (*Y, *ports("stateN", shape=(1, 9))), None) == ()
    assert find_links((*X, *ports("state", shape=(None, 8))), (*Y, *ports("stateN")), None) == ()
    assert find_links(state, (*Y, *ports("stateN")), None) == (), "nothing would be left to give"
    assert find_links((*X, *state), (*Y, *ports("stateN", shape=(None, None))), None) == (Link("state", "stateN"),)


REFUSED: list[tuple[list[tuple[str, str]], str]] = [
    ([("z", "b")], "has no 'z', but x, a, free"),
    ([("a", "z")], "has no 'z', but y, b, half"),
    ([("free", "b")], "free has free axes: give them with --shape free=1,128"),
    ([("a", "half")], "a is float32 and half is float16"),
    ([("a", "y")], r"a is \[1, 8\] and y is \[1, 3\]"),
    ([("a", "b"), ("a", "b")], "an input is in two states"),
]


@pytest.mark.parametrize(("wanted", "text"), REFUSED, ids=[text for _, text in REFUSED])
def test_a_state_that_cannot_be_is_refused(wanted: list[tuple[str, str]], text: str) -> None:
    inputs = (*X, *ports("a"), *ports("free", shape=(None, 8)))
    with pytest.raises(BadOption, match=text):
        find_links(inputs, (*Y, *ports("b"), *ports("half", dtype="float16")), wanted)


def test_something_is_left_for_applications() -> None:
    with pytest.raises(BadOption, match="no input would be left"):
        find_links(ports("a"), (*Y, *ports("b")), [("a", "b")])
    assert find_links((*X, *ports("a")), (*Y, *ports("b")), [("a", "b")]) == (Link("a", "b"),)
    assert find_links((*X, *ports("state")), (*Y, *ports("stateN")), []) == ()


def test_a_shape_that_only_the_first_run_shows_is_checked() -> None:
    feed = {"a": np.zeros((1, 8), np.float32)}
    outputs = (*Y, *ports("b", shape=(None, None)))
    check_links([Link("a", "b")], outputs, feed, [np.zeros((1, 3)), np.zeros((1, 8), np.float32)])
    with pytest.raises(BadOption, match=r"a is float32 \[1, 8\], and the model gives float32 \[2, 8\]"):
        check_links([Link("a", "b")], outputs, feed, [np.zeros((1, 3)), np.zeros((2, 8), np.float32)])


class Sum:
    """The sum of what it was given, as long as it is told it again."""

    def run(self, feed: Feed) -> Sequence[Array]:
        return [feed["x"] + feed["before"], feed["x"] * 10]


def test_what_comes_out_goes_in_again() -> None:
    runner = Remembering(Sum(), {"before": 0}, {"before": np.zeros(1)})
    told = [float(runner.run({"x": np.full(1, number), "before": np.full(1, 99.0)})[0][0]) for number in (1, 2, 3)]
    assert told == [1, 3, 6]
