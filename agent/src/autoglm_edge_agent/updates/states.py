"""The states of an update, as a literal table: (state, event) -> state.

An unknown pair raises and changes nothing. Missing on purpose:

- (ACTIVATING, REFUSED), (PROBATION, REFUSED): from the switch on the way out is to go back (OFFENDED), not to leave
  things as they are.
- (ACTIVATING, PASSED): no bundle is confirmed that was not on probation, be it for no time at all.
- (ROLLING_BACK, PASSED), (ROLLING_BACK, LOST): a model that has offended does not come back by itself.
- (CONFIRMED, REFUSED) and (FAILED, ...) but DESIRED: what has ended stays as it ended until a new generation comes.
"""

from __future__ import annotations

from enum import Enum


class State(str, Enum):
    """Where an update is."""

    IDLE = "idle"
    """No generation was ever asked for."""
    RESOLVING = "resolving"
    """The manifest is fetched, the variant chosen, the space checked."""
    FETCHING = "fetching"
    """Files are fetched, as far as they are not on the device already."""
    INSTALLING = "installing"
    """The bundle's tree is built from verified files and staged."""
    TRYING = "trying"
    """A worker loads the model and replays the golden set, while the old model serves."""
    ACTIVATING = "activating"
    """The slots are switched; the new worker takes over."""
    PROBATION = "probation"
    """The new model serves, and is watched; the previous one is kept to go back to."""
    ROLLING_BACK = "rolling-back"
    """It did not keep to its terms; the previous model takes over again."""
    CONFIRMED = "confirmed"
    FAILED = "failed"
    """Refused or gone back from, for a stated reason; whatever served before serves."""


class Event(str, Enum):
    """What happens to an update."""

    DESIRED = "a newer generation is desired"
    RESOLVED = "resolved"
    FETCHED = "fetched"
    INSTALLED = "installed"
    AGREED = "agreed with the golden set"
    ACTIVATED = "activated"
    PASSED = "passed its probation"
    OFFENDED = "did not keep to its terms"
    CLEARED = "nothing is to run"
    REFUSED = "refused"
    INTERRUPTED = "interrupted before the switch"
    LOST = "files were lost or damaged on disk"
    WITHDRAWN = "rolled back"


TABLE: dict[tuple[State, Event], State] = {
    (State.IDLE, Event.DESIRED): State.RESOLVING,
    (State.RESOLVING, Event.DESIRED): State.RESOLVING,
    (State.FETCHING, Event.DESIRED): State.RESOLVING,
    (State.INSTALLING, Event.DESIRED): State.RESOLVING,
    (State.TRYING, Event.DESIRED): State.RESOLVING,
    (State.ACTIVATING, Event.DESIRED): State.RESOLVING,
    (State.PROBATION, Event.DESIRED): State.RESOLVING,
    (State.ROLLING_BACK, Event.DESIRED): State.RESOLVING,
    (State.CONFIRMED, Event.DESIRED): State.RESOLVING,
    (State.FAILED, Event.DESIRED): State.RESOLVING,
    (State.RESOLVING, Event.RESOLVED): State.FETCHING,
    (State.RESOLVING, Event.CLEARED): State.CONFIRMED,
    (State.FETCHING, Event.FETCHED): State.INSTALLING,
    (State.INSTALLING, Event.INSTALLED): State.TRYING,
    (State.TRYING, Event.AGREED): State.ACTIVATING,
    (State.ACTIVATING, Event.INTERRUPTED): State.TRYING,
    (State.ACTIVATING, Event.ACTIVATED): State.PROBATION,
    (State.ACTIVATING, Event.OFFENDED): State.ROLLING_BACK,
    (State.PROBATION, Event.PASSED): State.CONFIRMED,
    (State.PROBATION, Event.OFFENDED): State.ROLLING_BACK,
    (State.ROLLING_BACK, Event.WITHDRAWN): State.FAILED,
    (State.RESOLVING, Event.REFUSED): State.FAILED,
    (State.FETCHING, Event.REFUSED): State.FAILED,
    (State.INSTALLING, Event.REFUSED): State.FAILED,
    (State.TRYING, Event.REFUSED): State.FAILED,
    (State.FETCHING, Event.LOST): State.RESOLVING,
    (State.INSTALLING, Event.LOST): State.RESOLVING,
    (State.TRYING, Event.LOST): State.RESOLVING,
    (State.ACTIVATING, Event.LOST): State.RESOLVING,
    (State.PROBATION, Event.LOST): State.RESOLVING,
    (State.ACTIVATING, Event.WITHDRAWN): State.FAILED,
    (State.PROBATION, Event.WITHDRAWN): State.FAILED,
    (State.CONFIRMED, Event.WITHDRAWN): State.FAILED,
}

ENDED = frozenset({State.IDLE, State.CONFIRMED, State.FAILED})


def follow(state: State, event: Event) -> State:
    """Return the next state. Raises ValueError for a pair that is not in the table."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise ValueError(f"{event.name} cannot happen in {state.name}") from None


def diagram() -> str:
    """Return the table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", "    [*] --> idle"]
    lines += [f"    {state.value} --> {target.value}: {event.value}" for (state, event), target in TABLE.items()]
    return "\n".join(lines) + "\n"
