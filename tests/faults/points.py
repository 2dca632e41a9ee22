"""Every fault that was really injected: (scenario, fault, number of the operation), each counted once."""

from __future__ import annotations

LEAST = 4700
"""A run of all tests that injects fewer has lost scenarios: about 5,700 are expected."""
INJECTED: set[tuple[str, str, int]] = set()


def injected(scenario: str, fault: str, operation: int) -> None:
    INJECTED.add((scenario, fault, operation))


def summary() -> list[str]:
    kinds = sorted({(scenario, fault) for scenario, fault, _ in INJECTED})
    rows = [(s, f, sum((s, f) == point[:2] for point in INJECTED)) for s, f in kinds]
    return [*(f"  {scenario}, {fault}: {count}" for scenario, fault, count in rows), f"fault points: {len(INJECTED)}"]
