from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from tests.faults import points

if TYPE_CHECKING:
    from tests.fakes.brokers import Broker

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # tests speak to nobody outside

# How long a case takes depends on what else the machine does.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

# A run in the background is started with SIGINT ignored, and so would be every command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ENDINGS = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")

GIVEN_BROKERS = "AUTOGLM_EDGE_TEST_BROKERS"
"""Addresses of running brokers, by kind: `mosquitto=mqtt://... nats=mqtt://...`. Set for the tests of an environment
that has the agent alone and so cannot start a broker with the fleet's code."""


@dataclass(frozen=True)
class GivenBroker:
    """A broker that somebody else runs: it can be used, not killed."""

    url: str


def _given() -> dict[str, str]:
    pairs = (item.partition("=") for item in os.environ.get(GIVEN_BROKERS, "").split())
    return {kind: url for kind, _, url in pairs}


def _kinds() -> tuple[str, ...]:
    if given := _given():
        return tuple(given)
    from tests.fakes.brokers import available_kinds

    return available_kinds()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what needs a broker with each kind that is installed, and with one where the broker is not its subject."""
    chosen = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "broker" in metafunc.fixturenames and "broker" not in chosen:
        once = metafunc.definition.get_closest_marker("one_broker") is not None
        metafunc.parametrize("broker", _kinds()[:1] if once else _kinds(), indirect=True)


@pytest.fixture
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker | GivenBroker]:
    """A running broker."""
    if given := _given():
        yield GivenBroker(given[request.param])
        return
    from tests.fakes.brokers import Broker

    running = Broker(request.param, tmp_path / "broker")
    running.start()
    yield running
    running.stop()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Give the faults that were injected in this process to the one that ends the run."""
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["injected"] = [list(point) for point in points.INJECTED]
    elif _is_whole(session.config) and len(points.INJECTED) < points.LEAST:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        sys.stderr.write(f"only {len(points.INJECTED)} fault points, at least {points.LEAST} are expected\n")


def _is_whole(config: pytest.Config) -> bool:
    """Whether all tests were asked for: only then are all faults there."""
    option = config.option
    chosen = option.markexpr not in ("", "not long") or option.keyword or option.collectonly
    return not chosen and config.args == config.getini("testpaths")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process that ran tests side by side has injected."""
    for scenario, fault, operation in getattr(node, "workeroutput", {}).get("injected", ()):
        points.injected(scenario, fault, operation)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Leave how many tests ended how, for who runs several environments and tells of all of them."""
    path = os.environ.get("AUTOGLM_EDGE_TEST_COUNTS")
    if path and not os.environ.get("PYTEST_XDIST_WORKER"):
        found = {kind: len(terminalreporter.stats.get(kind, ())) for kind in ENDINGS}
        Path(path).write_text(
            ", ".join(f"{count} {kind}" for kind, count in found.items() if count or kind == ENDINGS[0])
        )


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the run with the number of faults that were really injected."""
    if points.INJECTED and not hasattr(config, "workeroutput"):
        terminal = config.get_terminal_writer()
        for line in points.summary():
            terminal.line(line)
        if path := os.environ.get("AUTOGLM_EDGE_FAULT_POINTS"):
            Path(path).write_text(points.summary()[-1] + "\n")
