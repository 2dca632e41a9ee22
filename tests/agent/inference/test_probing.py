"""Candidates in real processes: they crash, hang, lie and answer wrong, and none of it reaches who asks."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
from pathlib import Path

import numpy as np
import pytest
from tests.fakes.model_bundles import MODEL_PATH, RIVAL_PATH, add_rival, make_model_bundle
from tests.fakes.onnx_writer import linear_model
from tests.fakes.processes import running
from tests.fakes.sites import Site
from tests.fakes.third_parties import write_backend
from tests.fakes.waiting import until

from autoglm_edge_agent.inference.candidates import MOST
from autoglm_edge_agent.inference.measurement import Measured
from autoglm_edge_agent.inference.options import Plan
from autoglm_edge_agent.inference.probed import MOST_BEGINNINGS, MOST_ENTRIES, Entry, Probed, Shelf
from autoglm_edge_agent.inference.probing import Prober, ProbeTerms
from autoglm_edge_agent.inference.supervisor import Supervisor
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_protocol.deployment import Installed
from autoglm_edge_protocol.durable import Disk

pytestmark = pytest.mark.one_broker

TROUBLE = '''
"""ONNX Runtime behind providers that are in trouble, each in its own way. Every opening is noted in a file."""
import os, signal, time
from pathlib import Path
from autoglm_edge_agent.inference.backends import Backend, load_backend
from autoglm_edge_agent.inference.errors import ModelUnusable

class Trouble:
    def __init__(self, session, provider):
        self._session, self._provider = session, provider
    def run(self, inputs):
        if self._provider == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._provider == "hang":
            time.sleep(600)
        (y,) = self._session.run(inputs)
        return [y[::-1, ::-1] if self._provider == "wrong" else y]
    def reset(self):
        self._session.reset()
    def placement(self):
        told = {"fallback": {"cpu": 2}, "partly": {"partly": 1, "cpu": 1}, "shy": {}}
        return told.get(self._provider, {self._provider: 2})

def open(path, inputs, outputs, options):
    with Path(os.environ["TROUBLE_LOG"]).open("a") as log:
        log.write(options.provider + "\\n")
    if options.provider == "shy" and not options.strict:
        raise ModelUnusable("it does not tell where nodes run, and was not told to be strict")
    if options.provider == "locked" and options.provider_options != {"key": "right"}:
        raise ModelUnusable("it has no key")
    if options.provider == "refuses":
        raise ModelUnusable("it does not like the model")
    inner = load_backend("onnxruntime").open(path, inputs, outputs, options.model_copy(update={"provider": "cpu"}))
    return Trouble(inner, options.provider)

BACKEND = Backend(open, lambda: os.environ["TROUBLES"].split())
'''


class Trial:
    """A bundle for a runtime that is in trouble, and a prober of it."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "opened"
        bundle = make_model_bundle(directory / "bundle", runtime="trouble")
        self.installed = Installed(bundle=bundle.reference, variant="fp32")
        self.path = bundle.directory
        self.shelf = Shelf(directory / "probes", Disk())

    def prober(self, **terms: object) -> Prober:
        settings = ProbeTerms.model_validate({"max_threads": 1, "seconds": 0.01, **terms})
        return Prober(lambda _: self.path, self.shelf, settings)

    def opened(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    packages = write_backend(tmp_path / "packages", "trouble", TROUBLE)
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    trial = Trial(tmp_path)
    monkeypatch.setenv("TROUBLE_LOG", str(trial.log))
    return trial


def _probes() -> list[int]:
    """Return the probes that live; other tests of this process may have workers of their own."""
    return [process.pid for process in running("autoglm_edge_agent.inference.probe")]


def _by_provider(measured: tuple[Measured, ...]) -> dict[str, str]:
    return {found.plan.options.provider: found.disqualified for found in measured}


async def test_trouble_disqualifies_a_candidate_and_nothing_else(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROUBLES", "crash wrong refuses fallback partly good")
    prober = trial.prober()
    await prober.measure(trial.installed)
    found = _by_provider(prober.measured(trial.installed))
    assert found["crash"] == "crashed: it was ended by SIGSEGV"
    assert found["wrong"].startswith("failed: it disagrees with the golden set: y: ")
    assert found["refuses"] == "failed: it does not like the model"
    assert found["fallback"] == "failed: it fell back to cpu: no node of it runs on fallback"
    assert found["good"] == found["partly"] == ""
    (partly,) = [m for m in prober.measured(trial.installed) if m.plan.options.provider == "partly"]
    assert (partly.partial, partly.placement) == (True, {"partly": 1, "cpu": 1})
    assert _probes() == []
    told = prober.acceleration(trial.installed)
    assert told is not None
    assert len(told.disqualified) == 4
    assert "SIGSEGV" in told.disqualified[0].message
    opened = trial.opened()
    again = trial.prober()
    await _try_out(trial, again)
    used = again.plans(trial.installed)[0].options.provider
    assert {used, *(plan.options.provider for plan in again.plans(trial.installed))} == {"good", "partly"}
    assert trial.opened() == [*opened, used], "measured once on this board; the worker takes the best"


async def _try_out(trial: Trial, prober: Prober) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        supervisor = Supervisor(
            lambda _: trial.path, [listener], 1, 30.0, 30.0, lambda _installed, _beat: None, lambda: None
        )
        supervisor.prober = prober
        await supervisor.try_out(trial.installed)
        assert supervisor.tried(trial.installed)
        await supervisor.close()


async def test_a_candidate_that_hangs_is_ended(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROUBLES", "hang")
    prober = trial.prober(timeout_s=1.0)
    await prober.measure(trial.installed)
    assert _by_provider(prober.measured(trial.installed)) == {"hang": "hung: no answer within 1 s"}
    assert prober.plans(trial.installed) == ()
    assert _probes() == []


async def test_what_ended_the_agent_twice_is_not_tried_a_third_time(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TROUBLES", "crash hang partly good")
    for beginning in range(1, MOST_BEGINNINGS + 1):
        agent = asyncio.create_task(trial.prober(strict=True).measure(trial.installed))
        await until(lambda: trial.opened().count("hang") >= beginning, 60, 0.05)  # noqa: B023
        agent.cancel()
        await asyncio.wait({agent})
    prober = trial.prober(strict=True)
    await prober.measure(trial.installed)
    found = _by_provider(prober.measured(trial.installed))
    assert found["hang"] == "the agent or the board ended each time that it was tried"
    assert trial.opened().count("hang") == MOST_BEGINNINGS
    assert trial.opened().count("crash") == 1, "what was finished before is not tried again"
    assert found["partly"] == "fell back in part: 1 on partly, 1 on cpu"
    assert [plan.options.provider for plan in prober.plans(trial.installed)] == ["good"]


async def test_a_provider_that_the_configuration_names_is_tried_with_its_options(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TROUBLES", "refuses")
    wrong, right = (trial.prober(providers={"trouble": {"locked": {"key": key}}}) for key in ("wrong", "right"))
    for prober, problem in ((wrong, "failed: it has no key"), (right, "")):
        await prober.measure(trial.installed)
        found = _by_provider(prober.measured(trial.installed))
        assert found == {"refuses": "failed: it does not like the model", "locked": problem}
    (plan,) = right.plans(trial.installed)
    assert plan.options.provider_options == {"key": "right"}, "with what it was measured it is served"
    await _try_out(trial, right)


async def test_who_wants_it_strict_has_the_runtime_refuse_what_only_it_can_see(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TROUBLES", "shy")
    lax, strict = trial.prober(), trial.prober(strict=True)
    for prober, disqualified in ((lax, True), (strict, False)):
        await prober.measure(trial.installed)
        assert bool(_by_provider(prober.measured(trial.installed))["shy"]) is disqualified
    assert [plan.options.strict for plan in strict.plans(trial.installed)] == [True], "and so has the worker"


def test_a_bundle_is_measured_when_it_is_installed(site: Site) -> None:
    agent = site.agent(probe="max_threads = 1\nseconds = 0.01")
    bundle = site.bundle("1")
    report = site.confirm(bundle)
    assert report.acceleration is not None
    assert report.acceleration.used is not None
    assert (report.acceleration.used.provider, set(report.acceleration.used.placement)) == ("cpu", {"cpu"})
    probed = Shelf(agent.state / "probes", Disk()).read(bundle.reference.manifest_sha256)
    (entry,) = probed.entries
    assert {found.plan.options.optimisation for found in entry.measured} == {"all", "basic"}
    assert all(found.figures is not None for found in entry.measured)
    site.assert_serves(agent, bundle)


@pytest.mark.parametrize("quick", ["fp32", "rival"])
def test_a_variant_of_unknown_speed_is_measured_beside_the_one_that_is_told_to_be_fast(site: Site, quick: str) -> None:
    """Both give the same answers; one multiplies by a large matrix for them, the other has the product in its file."""
    agent = site.agent(probe="max_threads = 1\nseconds = 0.05")
    slow = site.bundle("1", width=1024, body=1)
    assert slow.body is not None
    folded = linear_model(slow.body @ slow.weights, slow.bias)
    model = slow.directory / MODEL_PATH
    rival = folded if quick == "rival" else model.read_bytes()
    if quick == "fp32":
        model.write_bytes(folded)
    bundle = add_rival(slow, rival, told=0.6, unknown=platform.machine())
    report = site.confirm(bundle)
    assert report.current is not None
    assert report.current.variant == quick
    probed = Shelf(agent.state / "probes", Disk()).read(bundle.reference.manifest_sha256)
    assert len(probed.entries) == 2
    tree = agent.state / "bundles" / bundle.reference.manifest_sha256
    assert all((tree / path).is_file() for path in (MODEL_PATH, RIVAL_PATH))
    site.assert_serves(agent, bundle, np.random.default_rng(1).standard_normal((1, 1024), dtype=np.float32))


def test_figures_go_with_their_bundle(tmp_path: Path) -> None:
    store, shelf = Store(tmp_path, Disk()), Shelf(tmp_path / "probes", Disk())
    shelf.write("1" * 64, Probed())
    shelf.write("2" * 64, Probed())
    store.collect({"2" * 64})
    assert [path.name for path in (tmp_path / "probes").iterdir()] == [f"{'2' * 64}.json"]


def test_damaged_figures_are_none(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, Disk())
    entry = Entry(key="k").end(Measured(plan=Plan(runtime="a"), disqualified="crashed"))
    shelf.write("0" * 64, Probed().put(entry))
    assert shelf.read("0" * 64).entries == (entry,)
    path = tmp_path / f"{'0' * 64}.json"
    os.truncate(path, path.stat().st_size // 2)
    assert shelf.read("0" * 64) == Probed()


def test_as_much_is_read_as_is_written(tmp_path: Path) -> None:
    shelf, digest = Shelf(tmp_path, Disk()), "0" * 64
    found = tuple(Measured(plan=Plan(runtime=f"r{number}"), disqualified="x" * 2000) for number in range(MOST))
    for key in map(str, range(MOST_ENTRIES)):
        shelf.write(digest, shelf.read(digest).put(Entry(key=key, measured=found, done=True)))
    assert [entry.key for entry in shelf.read(digest).entries] == [str(number) for number in range(MOST_ENTRIES)]


def test_only_the_latest_entries_are_kept() -> None:
    probed = Probed()
    for number in range(9):
        probed = probed.put(Entry(key=str(number)))
    assert [entry.key for entry in probed.put(Entry(key="7", done=True)).entries] == ["5", "6", "8", "7"]
