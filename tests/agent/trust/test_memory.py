"""What is remembered never shrinks, in whatever order things come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.agent.trust.devices import command, desired, reference

from autoglm_edge_agent.trust.decision import Distrust, check_command, check_desired
from autoglm_edge_agent.trust.memory import COMMANDS_KEPT, Memory
from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.versions import is_downgrade

TIMES = st.floats(0, 4e9)
VERSIONS = st.lists(st.integers(0, 30), min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts)))
STEPS = st.lists(st.tuples(st.sampled_from(["desired", "command", "confirmed"]), st.integers(1, 9), TIMES, VERSIONS))


def _after(memory: Memory, step: tuple[str, int, float, str], latest: float) -> Memory:
    kind, number, at, version = step
    if kind == "desired":
        bound = desired(number, reference(version)).model_copy(update={"signed_at": at})
        return memory.with_desired(bound, "d" * 64, latest)
    if kind == "command":
        return memory.with_command(command(f"c{number}").model_copy(update={"signed_at": at}), latest)
    return memory.with_confirmed(reference(version))


@given(STEPS, TIMES)
def test_no_floor_ever_sinks(steps: list[tuple[str, int, float, str]], latest: float) -> None:
    memory = Memory()
    for step in steps:
        after = _after(memory, step, latest)
        assert after.generation >= memory.generation
        assert after.time_floor >= memory.time_floor and after.time_floor <= latest
        assert after.commands_floor >= memory.commands_floor
        for name, version in memory.versions.items():
            assert not is_downgrade(after.versions[name], version)
        assert parse(Memory, after.to_bytes()) == after
        memory = after


@given(st.lists(TIMES, max_size=3 * COMMANDS_KEPT))
def test_a_command_is_let_in_again_only_while_its_answer_is_remembered(times: list[float]) -> None:
    memory = Memory()
    let_in = []
    for number, at in enumerate(times):
        each = command(f"c{number}", fleet="home").model_copy(update={"signed_at": at})
        try:
            check_command(each, "home", "porch", memory)
        except Distrust:
            continue
        memory = memory.with_command(each, 0.0)
        let_in.append(each)
    assert len(memory.commands) <= COMMANDS_KEPT
    for forgotten in let_in[:-COMMANDS_KEPT]:
        with pytest.raises(Distrust, match="older"):
            check_command(forgotten, "home", "porch", memory)


@given(st.integers(1, 5), st.integers(1, 5), TIMES, TIMES)
def test_of_two_desired_states_the_older_is_never_let_in_after_the_newer(
    first: int, second: int, first_at: float, second_at: float
) -> None:
    def bound(generation: int, at: float) -> object:
        return desired(generation).model_copy(update={"signed_at": at, "expires_at": 1e10})

    older, newer = sorted([(first, first_at), (second, second_at)])
    memory = Memory().with_desired(bound(*newer), "d" * 64, 0.0)  # type: ignore[arg-type]
    if older == newer:
        check_desired(bound(*older), "home", "porch", 0.0, memory)  # type: ignore[arg-type]
        return
    with pytest.raises(Distrust) as caught:
        check_desired(bound(*older), "home", "porch", 0.0, memory)  # type: ignore[arg-type]
    assert caught.value.reason.code == "replayed"


def test_a_copy_of_a_command_that_was_signed_later_is_no_way_around_the_floor() -> None:
    def copy(number: int, at: float) -> Command:
        return command(f"c{number}", fleet="home").model_copy(update={"signed_at": at})

    memory = Memory().with_command(copy(0, 1.0), 0.0).with_command(copy(0, 1000.0), 0.0)
    for number in range(1, COMMANDS_KEPT + 1):
        memory = memory.with_command(copy(number, 1.0 + number), 0.0)
    with pytest.raises(Distrust, match="older"):
        check_command(copy(0, 1000.0), "home", "porch", memory)
