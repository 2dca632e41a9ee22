"""Loading one signature of a SavedModel, by the loader of TensorFlow 2 or, where that fails, of TensorFlow 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it has no types

from autoglm_edge_converter.errors import BadModel, BadOption, MissingWeights, NotAModel
from autoglm_edge_converter.roads.tensorflow_call import Call
from autoglm_edge_converter.roads.tensorflow_program import said
from autoglm_edge_converter.tensors import clear_of

DEFAULT = "serving_default"
_CHOICE = "autoglm_edge.signature"
"""A file beside the graph that remembers which signature was chosen."""
_INITIALISER = "__saved_model_init_op"
_SERVE = "serve"


def signature_of(folder: Path, wanted: str | None) -> str:
    """Return the signature to take. Raises NotAModel, BadOption, BadModel."""
    names = sorted(_signatures(folder))
    if wanted is not None:
        if wanted not in names:
            raise BadOption(f"{folder} has no signature {wanted!r}, its signatures are: {', '.join(names) or 'none'}")
        return wanted
    if DEFAULT in names or len(names) == 1:
        return DEFAULT if DEFAULT in names else names[0]
    if names:
        raise BadOption(f"{folder} has several signatures ({', '.join(names)}): choose one with --signature")
    raise BadModel(f"{folder} has no signature: write it with model.export(FOLDER) or tf.saved_model.save(signatures=)")


def _signatures(folder: Path) -> Mapping[str, Any]:
    graph = _meta_graph(folder)
    return {name: entry for name, entry in graph.signature_def.items() if name != _INITIALISER and entry.outputs}


def _meta_graph(folder: Path) -> Any:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    path = folder / "saved_model.pb"
    if not path.is_file():
        raise NotAModel(f"{folder} is no SavedModel, it holds no saved_model.pb: give the folder that has it")
    saved = SavedModel()
    try:
        saved.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise NotAModel(f"{path} is damaged or cut short ({error}): export or copy it again") from None
    graphs = [graph for graph in saved.meta_graphs if _SERVE in graph.meta_info_def.tags]
    if not graphs:
        raise NotAModel(f"{folder} has no graph for serving: export the model again")
    return graphs[0]


def remember_signature(folder: Path, signature: str) -> None:
    """Note the choice in a copy of the folder."""
    (folder / _CHOICE).write_text(signature, encoding="utf-8")


def chosen_signature(folder: Path) -> str:
    """Return what `remember_signature` noted, or what would be chosen. Raises NotAModel, BadOption, BadModel."""
    note = folder / _CHOICE
    return note.read_text(encoding="utf-8") if note.is_file() else signature_of(folder, None)


def load_signature(folder: Path, signature: str) -> Call:
    """Return one signature as a call, inputs and outputs by their names in order. Raises BadModel, MissingWeights."""
    _check_weights(folder)
    described = _signatures(folder)[signature]
    try:
        return _load(folder, signature)
    except Exception as error:
        try:
            return _load_v1(folder, described)
        except Exception as second:
            reason = f"{said(error)}; by the loader of TensorFlow 1: {said(second)}"
            raise BadModel(f"TensorFlow {tf.__version__} does not load {folder}: {reason}") from None


def _check_weights(folder: Path) -> None:
    variables = folder / "variables"
    if (variables / "variables.index").is_file() and not list(variables.glob("variables.data-*")):
        raise MissingWeights(f"{variables} has an index and no data: copy the whole folder again")


def _load(folder: Path, signature: str) -> Call:
    loaded = tf.saved_model.load(str(folder), tags=[_SERVE])
    function = loaded.signatures[signature]
    _, arguments = function.structured_input_signature
    names = sorted(arguments)
    outputs = sorted(function.structured_outputs)
    specs = tuple(tf.TensorSpec(arguments[name].shape, arguments[name].dtype, name) for name in names)

    def call(*tensors: Any) -> Sequence[Any]:
        # `loaded` is named so that its variables and tables live as long as this function.
        assert loaded is not None
        answers = function(**dict(zip(names, tensors, strict=True)))
        return tuple(answers[name] for name in outputs)

    return Call(call, specs, tuple(clear_of(outputs, names)), tuple(function.variables))


def _load_v1(folder: Path, described: Any) -> Call:
    """Load with variables made constants, which needs none of the objects that TensorFlow 2 looks for."""
    names, outputs = sorted(described.inputs), sorted(described.outputs)
    fetched = [described.outputs[name].name for name in outputs]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.loader.load(session, [_SERVE], str(folder))
        nodes = [name.partition(":")[0] for name in fetched]
        frozen = tf.compat.v1.graph_util.convert_variables_to_constants(session, session.graph_def, nodes)
    _rename_functions(frozen)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(frozen, name=""), [])
    fed = [wrapped.graph.as_graph_element(described.inputs[name].name) for name in names]
    pruned = wrapped.prune(fed, [wrapped.graph.as_graph_element(name) for name in fetched])
    specs = tuple(tf.TensorSpec(tensor.shape, tensor.dtype, name) for name, tensor in zip(names, fed, strict=True))
    return Call(lambda *tensors: tuple(pruned(*tensors)), specs, tuple(clear_of(outputs, names)))


def _rename_functions(graph: Any) -> None:
    """Rename the functions that a graph calls and drop the others. Changes the graph.

    The loader that failed before left some of the same names, and functions that save and restore are for no one here.
    """
    called = _called(graph)
    kept = [function for function in graph.library.function if function.signature.name in called]
    names = {function.signature.name: f"v1_{function.signature.name}" for function in kept}
    for function in kept:
        function.signature.name = names[function.signature.name]
    for node in (*graph.node, *(node for function in kept for node in function.node_def)):
        node.op = names.get(node.op, node.op)
        for reference in _references(node):
            reference.name = names.get(reference.name, reference.name)
    copies = [type(function).FromString(function.SerializeToString()) for function in kept]
    del graph.library.function[:]
    del graph.library.gradient[:]
    graph.library.function.extend(copies)


def _called(graph: Any) -> set[str]:
    """Return the names of the functions that a graph calls, and of those that these call."""
    bodies = {function.signature.name: function.node_def for function in graph.library.function}
    found: set[str] = set()
    pending = [graph.node]
    while pending:
        for node in pending.pop():
            for name in {node.op, *(reference.name for reference in _references(node))} & set(bodies) - found:
                found.add(name)
                pending.append(bodies[name])
    return found


def _references(node: Any) -> Iterator[Any]:
    for attribute in node.attr.values():
        if attribute.HasField("func"):
            yield attribute.func
        yield from attribute.list.func
