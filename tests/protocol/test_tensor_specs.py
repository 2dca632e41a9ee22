"""What a manifest may say of tensors that a file has otherwise, and of states."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from autoglm_edge_protocol.manifest import State, TensorSpec

IMAGE: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, 3, -1, 8]}
WRONG_STORED: list[tuple[str, dict[str, Any]]] = [
    ("too few axes", {"axes": [0, 2, 1]}),
    ("an axis twice", {"axes": [0, 2, 2, 1]}),
    ("no such axis", {"axes": [0, 2, 4, 1]}),
    ("no scale", {"scale": 0.0}),
    ("a negative scale", {"scale": -1.0}),
    ("a datatype that is none", {"datatype": "float 32"}),
]


@pytest.mark.parametrize("stored", [row[1] for row in WRONG_STORED], ids=[row[0] for row in WRONG_STORED])
def test_what_cannot_be_stored_is_refused(stored: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TensorSpec.model_validate({**IMAGE, "stored": stored})


def test_axes_in_another_order_are_accepted() -> None:
    spec = TensorSpec.model_validate({**IMAGE, "stored": {"axes": [0, 2, 3, 1], "datatype": "INT8", "scale": 0.5}})
    assert TensorSpec.model_validate_json(spec.model_dump_json()) == spec


def test_a_state_has_a_size_of_its_own() -> None:
    with pytest.raises(ValidationError, match="free dimension"):
        State.model_validate({"input": IMAGE, "output": "y"})
    State.model_validate({"input": {**IMAGE, "shape": [2, 1, 64]}, "output": "y"})
