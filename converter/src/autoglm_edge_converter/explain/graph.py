"""A graph as operators and the names of tensors between them: all that is needed to follow one through rewrites."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import onnx


@dataclass(frozen=True)
class Operator:
    """One operator. `name` is what a person knows it by; it may be empty."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def known_as(self) -> str:
        """Its name, or that of what it gives."""
        return self.name or next((output for output in self.outputs if output), "")


@dataclass(frozen=True)
class Graph:
    """Operators in their order, and the tensors that the file gives a value."""

    operators: tuple[Operator, ...]
    constants: frozenset[str] = frozenset()

    @cached_property
    def makers(self) -> dict[str, Operator]:
        """What makes each tensor."""
        return {name: entry for entry in self.operators for name in entry.outputs if name}

    @cached_property
    def readers(self) -> dict[str, list[Operator]]:
        """What reads each tensor."""
        found: dict[str, list[Operator]] = {}
        for entry in self.operators:
            for name in dict.fromkeys(entry.inputs):
                found.setdefault(name, []).append(entry)
        return found

    def counts(self) -> dict[str, int]:
        """Return how many operators of each kind there are, the most frequent first."""
        return dict(Counter(entry.kind for entry in self.operators).most_common())


def graph_of(proto: onnx.ModelProto) -> Graph:
    """Return the graph of an ONNX model. `Constant` nodes are constants; graphs inside of nodes are not looked into."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    constants |= {name for node in proto.graph.node if node.op_type == "Constant" for name in node.output}
    operators = tuple(
        Operator(_kind(node), node.name, tuple(node.input), tuple(node.output))
        for node in proto.graph.node
        if node.op_type != "Constant"
    )
    return Graph(operators, frozenset(constants))


def _kind(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}"
