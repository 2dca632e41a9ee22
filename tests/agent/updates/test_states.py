from __future__ import annotations

from itertools import product

import pytest

from autoglm_edge_agent.updates.states import ENDED, TABLE, Event, State, diagram, follow

UNKNOWN = [pair for pair in product(State, Event) if pair not in TABLE]


@pytest.mark.parametrize(("state", "event"), UNKNOWN, ids=lambda value: value.name)
def test_a_pair_that_is_not_in_the_table_raises(state: State, event: Event) -> None:
    with pytest.raises(ValueError, match=event.name):
        follow(state, event)


@pytest.mark.parametrize("state", State)
def test_every_state_reaches_an_end_and_takes_a_new_generation(state: State) -> None:
    reached, before = {state}, set[State]()
    while reached != before:
        before = set(reached)
        reached |= {target for (source, _), target in TABLE.items() if source in reached}
    assert reached & (ENDED - {State.IDLE})
    assert follow(state, Event.DESIRED) is State.RESOLVING


def test_the_diagram_shows_every_transition() -> None:
    lines = diagram().splitlines()
    for (state, event), target in TABLE.items():
        assert f"    {state.value} --> {target.value}: {event.value}" in lines
    assert all(any(state.value in line for line in lines) for state in State)
