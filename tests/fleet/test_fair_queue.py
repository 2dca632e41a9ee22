from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_fleet.fair_queue import Admission, FairQueue

DEVICES = st.sampled_from("abcd")
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), DEVICES, st.integers(0, 9)),
        st.tuples(st.just("pop"), st.none(), st.none()),
        st.tuples(st.just("drop"), DEVICES, st.none()),
    ),
    max_size=80,
)


@given(OPERATIONS, st.integers(1, 5))
def test_it_behaves_as_a_list_per_device_would(operations: list[tuple[str, str, int]], bound: int) -> None:
    queue: FairQueue[int] = FairQueue(bound)
    model: dict[str, list[int]] = {device: [] for device in "abcd"}
    for name, device, item in operations:
        if name == "push":
            waiting = model[device]
            repeated, full = item in waiting, len(waiting) >= bound
            expected = Admission.REPEATED if repeated else Admission.FULL if full else Admission.QUEUED
            assert queue.push(device, item) is expected
            if expected is Admission.QUEUED:
                waiting.append(item)
        elif name == "drop":
            assert queue.drop(device) == len(model[device])
            model[device] = []
        else:
            turn = queue.pop()
            if turn is None:
                assert not any(model.values())
            else:
                assert model[turn[0]].pop(0) == turn[1], "not the oldest of its device"
        assert len(queue) == sum(map(len, model.values()))
        assert all(queue.waiting(each) == len(model[each]) for each in model)


@given(st.dictionaries(DEVICES, st.integers(1, 50), min_size=2))
def test_whoever_waits_is_served_once_before_anyone_is_served_twice(wants: dict[str, int]) -> None:
    queue: FairQueue[int] = FairQueue(50)
    for device, count in wants.items():
        for item in range(count):
            queue.push(device, item)
    served: Counter[str] = Counter()
    while turn := queue.pop():
        served[turn[0]] += 1
        left = [device for device in wants if served[device] < wants[device]]
        assert all(served[turn[0]] - served[device] <= 1 for device in left)
    assert served == wants


def test_a_newcomer_waits_for_one_round_at_most() -> None:
    queue: FairQueue[int] = FairQueue(256)
    for device in "abc":
        for item in range(100):
            queue.push(device, item)
    queue.push("late", 0)
    assert "late" in {queue.pop()[0] for _ in range(4)}  # type: ignore[index]
