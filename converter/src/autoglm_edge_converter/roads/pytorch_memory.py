"""Buffers that forward writes and a later call reads: no file for a device carries them from call to call."""

from __future__ import annotations

from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from autoglm_edge_converter.errors import BadModel


def refuse_memory(program: ExportedProgram) -> None:
    """Refuse a program whose answers depend on buffers that it changes. Raises BadModel."""
    names = memory_of(program)
    if names:
        raise BadModel(
            f"forward changes the buffer {names[0]!r} and reads it again at the next call, which a file cannot do: "
            "take it in as an argument, give the new one out as an output, and name the two with --state before=after"
        )


def memory_of(program: ExportedProgram) -> tuple[str, ...]:
    """Return the buffers that are changed and whose old values reach the answers; mere counters are not among them."""
    pure = _without_writing(program)
    signature = pure.graph_signature
    changed, answers = set(signature.buffers_to_mutate.values()), set(signature.user_outputs)
    return tuple(
        buffer
        for node in pure.graph.nodes
        if node.op == "placeholder" and (buffer := signature.inputs_to_buffers.get(node.name)) in changed
        if not answers.isdisjoint(_reached(node))
    )


def _without_writing(program: ExportedProgram) -> ExportedProgram:
    """Return the program with writing in place made into results, which alone shows in its signature."""
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, GraphModule)]
    if not program.graph_signature.buffers or not any(_writes(node) for graph in graphs for node in graph.nodes):
        return program  # nearly always, and the way over decompositions takes long
    try:
        return program.run_decompositions({})
    except Exception:
        return program  # the exporters go the same way, and tell what is wrong with their format


def _writes(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _reached(start: Node) -> set[str]:
    """Return the names of all nodes that depend on one."""
    found: set[str] = set()
    pending = [start]
    while pending:
        node = pending.pop()
        if node.name not in found:
            found.add(node.name)
            pending += node.users
    return found
