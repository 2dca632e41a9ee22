"""A model that remembers: what it gives for its state tensors goes in again with the next run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_agent.client.datatypes import DATATYPES
from autoglm_edge_agent.inference.backends import Session
from autoglm_edge_protocol.manifest import State

Array = npt.NDArray[Any]


class Stateful:
    """A session without the state tensors, around one whose last inputs and outputs they are."""

    def __init__(self, session: Session, states: Sequence[State]) -> None:
        self._session = session
        self._beginning = [np.zeros(s.input.shape, DATATYPES[s.input.datatype]) for s in states]
        self._state = self._beginning

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """See `Session.run`. A run that fails leaves the state as it was."""
        answers = self._session.run([*inputs, *self._state])
        first = len(answers) - len(self._state)
        state = answers[first:]
        if [a.shape for a in state] != [a.shape for a in self._beginning]:
            raise ValueError("the model gave a state of another shape than it takes")
        self._state = state
        return answers[:first]

    def reset(self) -> None:
        """See `Session.reset`."""
        self._session.reset()
        self._state = self._beginning

    def placement(self) -> Mapping[str, int]:
        """See `Session.placement`."""
        return self._session.placement()
