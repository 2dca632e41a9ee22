"""Models that remember: which output goes in again with the next run, and running them so.

Such a pair of tensors is a state. It begins with zeros; applications neither give it nor see it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoglm_edge_converter.errors import BadOption
from autoglm_edge_converter.runners import Runner
from autoglm_edge_converter.tensors import Array, Feed, Port

_REMEMBER = frozenset(("state", "states", "hidden", "cell", "memory", "cache", "carry", "h", "c"))
"""Words in the names of what a model remembers."""
_SIDES = frozenset(
    ("in", "input", "out", "output", "n", "next", "new", "prev", "previous", "past", "present", "initial")
)
"""Words that tell the two tensors of a state apart, and a last 0."""
_SHORT = {"hn": "h", "cn": "c"}
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")


@dataclass(frozen=True)
class Link:
    """A state."""

    input: str
    output: str

    def __str__(self) -> str:
        return f"{self.input}={self.output}"


def find_links(
    inputs: Sequence[Port], outputs: Sequence[Port], wanted: Sequence[tuple[str, str]] | None
) -> tuple[Link, ...]:
    """Return the states: those that are `wanted`, (input, output), or with None those that the names leave no doubt of.

    Raises BadOption for one that cannot be.
    """
    if wanted is None:
        return _obvious(inputs, outputs)
    given, made = {port.name: port for port in inputs}, {port.name: port for port in outputs}
    for name, output in wanted:
        if name not in given or output not in made:
            missing, known = (name, given) if name not in given else (output, made)
            raise BadOption(f"--state {name}={output}: the model has no {missing!r}, but {', '.join(known)}")
        if problem := _unlike(given[name], made[output]):
            raise BadOption(f"--state {name}={output}: {problem}")
    for names, ports, side in ((0, inputs, "input"), (1, outputs, "output")):
        used = [pair[names] for pair in wanted]
        if len(set(used)) != len(used):
            raise BadOption(f"--state: an {side} is in two states")
        if len(used) == len(ports):
            raise BadOption(f"--state: no {side} would be left for applications")
    return tuple(Link(*pair) for pair in wanted)


def _unlike(given: Port, made: Port) -> str | None:
    if given.shape is None or None in given.shape:
        return f"{given.name} has free axes: give them with --shape {given.name}=1,128"
    if given.dtype != made.dtype:
        return f"{given.name} is {given.dtype} and {made.name} is {made.dtype}"
    fits = made.shape is None or (
        len(made.shape) == len(given.shape)
        and all(axis in (None, size) for axis, size in zip(made.shape, given.shape, strict=True))
    )
    return None if fits else f"{given.name} is {list(given.shape)} and {made.name} is {list(made.shape or ())}"


def _obvious(inputs: Sequence[Port], outputs: Sequence[Port]) -> tuple[Link, ...]:
    """Pair what has the same name but for the side, and a word in it that is said of what is remembered."""
    found = []
    for port in inputs:
        stem = _stem(port.name)
        alike = [other for other in outputs if _stem(other.name) == stem]
        rivals = [other for other in inputs if _stem(other.name) == stem]
        if _REMEMBER & set(stem) and len(alike) == len(rivals) == 1 and _unlike(port, alike[0]) is None:
            found.append(Link(port.name, alike[0].name))
    return tuple(found) if len(found) < min(len(inputs), len(outputs)) else ()


def _stem(name: str) -> tuple[str, ...]:
    words = [_SHORT.get(word.lower(), word.lower()) for word in _WORDS.findall(name)]
    if words and words[-1] == "0":
        words.pop()
    return tuple(word for word in words if word not in _SIDES)


def check_links(links: Sequence[Link], outputs: Sequence[Port], feed: Feed, answer: Sequence[Array]) -> None:
    """Refuse a state whose output turned out to be of another shape than goes in. Raises BadOption."""
    for link, number in zip(links, places(links, outputs), strict=True):
        given, made = feed[link.input], answer[number]
        if given.shape != made.shape or given.dtype != made.dtype:
            raise BadOption(
                f"--state {link}: {link.input} is {given.dtype} {list(given.shape)}, and the model gives "
                f"{made.dtype} {list(made.shape)} for it"
            )


def places(links: Sequence[Link], outputs: Sequence[Port]) -> tuple[int, ...]:
    """Return which outputs the states are."""
    names = [port.name for port in outputs]
    return tuple(names.index(link.output) for link in links)


class Remembering:
    """A runner whose states go in again by themselves. `beginning`: what goes in first, by input."""

    def __init__(self, runner: Runner, states: Mapping[str, int], beginning: Feed) -> None:
        self._runner = runner
        self._states = states
        self._state = beginning

    def run(self, feed: Feed) -> Sequence[Array]:
        """Run once, with the state that the run before left; returns all outputs, states too."""
        found = self._runner.run({**feed, **self._state})
        self._state = {name: np.asarray(found[number]) for name, number in self._states.items()}
        return found


def zeros(feed: Feed, states: Mapping[str, int]) -> Feed:
    """Return what states begin with, in the shapes of a sample."""
    return {name: np.zeros_like(feed[name]) for name in states}
