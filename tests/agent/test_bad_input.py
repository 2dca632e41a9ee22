"""What comes from a fleet or a network that is wrong: refused with a code, and the old model serves."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest
from tests.fakes.agents import wait_until
from tests.fakes.fleets import Spoil
from tests.fakes.model_bundles import ModelBundle
from tests.fakes.sites import Json, Site

from autoglm_edge_protocol.commands import Outcome
from autoglm_edge_protocol.deployment import DesiredState
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import CHUNK_INDEX_PATH, GOLDEN_PATH
from autoglm_edge_protocol.topics import Channel, Topic

pytestmark = pytest.mark.one_broker

MODEL = "variants/fp32/model.onnx"


def _variant(**changes: Any) -> Callable[[Json], object]:
    return lambda manifest: manifest["variants"][0].update(changes)


def _needs(**changes: Any) -> Callable[[Json], object]:
    return lambda manifest: manifest["variants"][0]["needs"].update(changes)


def _tensor(**changes: Any) -> Callable[[Json], object]:
    return lambda manifest: manifest["variants"][0]["inputs"][0].update(changes)


def _model_chunk(index: Json, model_bytes: int) -> Json:
    entry: Json = next(file for file in index["files"] if file["size_bytes"] == model_bytes)
    return entry


def _wrong_chunk(bundle: ModelBundle) -> Callable[[Json], object]:
    size = (bundle.directory / MODEL).stat().st_size
    return lambda index: _model_chunk(index, size)["chunks"][0].update(sha256=sha256_of(b"other"))


def _chunk_missing(bundle: ModelBundle) -> Callable[[Json], object]:
    size = (bundle.directory / MODEL).stat().st_size
    return lambda index: index["files"].remove(_model_chunk(index, size))


Deploy = Callable[[Site, str], int]

REFUSED: list[tuple[str, str, Deploy]] = [
    (
        "a manifest that nobody has",
        "not-found",
        lambda s, v: s.fleet.deploy(s.bundle(v).reference),
    ),
    (
        "a manifest with another digest",
        "corrupt-data",
        lambda s, v: _offer_other(s, s.bundle(v)),
    ),
    ("a manifest that is not JSON", "bad-bundle", lambda s, v: s.deploy_bytes(b"\x00\xff not JSON", v)),
    ("a manifest that is another document", "bad-bundle", lambda s, v: s.deploy_bytes(b'{"hello": 1}', v)),
    (
        "a manifest of a newer schema",
        "unsupported-schema",
        lambda s, v: s.deploy(s.changed(s.bundle(v), lambda m: m.update(schema_version=2))),
    ),
    (
        "a manifest of another bundle",
        "bad-bundle",
        lambda s, v: s.fleet.deploy(s.fleet.publish(s.bundle(v)).model_copy(update={"version": "99"})),
    ),
    ("an unknown variant", "unknown-variant", lambda s, v: s.deploy(s.bundle(v), variant="int4")),
    (
        "a runtime that is not here",
        "no-fitting-variant",
        lambda s, v: s.deploy(s.changed(s.bundle(v), _needs(runtime="litert"))),
    ),
    (
        "a runtime that is too old",
        "no-fitting-variant",
        lambda s, v: s.deploy(s.changed(s.bundle(v), _needs(min_version="99.1"))),
    ),
    (
        "more memory than the board has",
        "no-fitting-variant",
        lambda s, v: s.deploy(s.bundle(v, memory_bytes=1 << 50)),
    ),
    (
        "a chunk index with a wrong digest",
        "corrupt-data",
        lambda s, v: s.deploy(s.index_changed(b := s.bundle(v, seed=77), _wrong_chunk(b))),
    ),
    (
        "a chunk index without the model",
        "bad-bundle",
        lambda s, v: s.deploy(s.index_changed(b := s.bundle(v, seed=78), _chunk_missing(b))),
    ),
    (
        "a chunk index of a newer schema",
        "unsupported-schema",
        lambda s, v: s.deploy(s.index_changed(s.bundle(v), lambda i: i.update(schema_version=7))),
    ),
    (
        "a chunk index that is not JSON",
        "bad-bundle",
        lambda s, v: s.deploy(s.file_changed(s.bundle(v), CHUNK_INDEX_PATH, lambda _: b"[1, 2")),
    ),
    ("a file that is no model", "model-unusable", lambda s, v: s.deploy(s.bundle(v, model_bytes=b"no model" * 99))),
    (
        "a model without the named input",
        "model-unusable",
        lambda s, v: s.deploy(s.changed(s.bundle(v), _tensor(name="z"))),
    ),
    (
        "a datatype that nobody knows",
        "model-unusable",
        lambda s, v: s.deploy(s.changed(s.bundle(v), _tensor(datatype="BF16"))),
    ),
    ("weights that were damaged", "golden-disagreement", lambda s, v: s.deploy(s.bundle(v, seed=5, damage=True))),
    (
        "no tolerances to judge by",
        "bad-bundle",
        lambda s, v: s.deploy(s.changed(s.bundle(v), _variant(tolerances=[]))),
    ),
    (
        "a golden set that is not in the chunk index",
        "bad-bundle",
        lambda s, v: s.deploy(s.file_changed(s.bundle(v, seed=9), GOLDEN_PATH, lambda d: secrets.token_bytes(len(d)))),
    ),
    ("a golden set that is none", "bad-bundle", lambda s, v: s.deploy(s.bundle(v, golden_bytes=b"no archive"))),
]


def _offer_other(site: Site, bundle: ModelBundle) -> int:
    reference = site.fleet.publish(bundle)
    other = site.directory / "other"
    other.write_bytes(secrets.token_bytes(reference.manifest_size_bytes))
    site.fleet.offer(reference.manifest_sha256, other)
    return site.fleet.deploy(reference)


def test_a_bad_bundle_is_refused_with_its_code_and_the_old_model_serves(site: Site) -> None:
    good = site.bundle("1")
    agent = site.agent()
    site.confirm(good)
    for number, (what, code, deploy) in enumerate(REFUSED, start=2):
        generation = deploy(site, str(number))
        report = site.refused(generation)
        assert report.reason is not None, what
        print(f"{what}: {report.reason.code}: {report.reason.message}")
        assert (what, report.reason.code) == (what, code)
        assert "\n" not in report.reason.message
        site.assert_serves(agent, good)
        current = site.fleet.reports["dev-1"].current
        assert current is not None and current.bundle == good.reference
    last = site.bundle("last", seed=123)
    site.confirm(last)
    site.assert_serves(agent, last)
    assert agent.stop() == 0
    assert "Traceback" not in agent.log_text()


def _truncated(_: str, offset: int, data: bytes) -> list[tuple[int, bytes]]:
    return [(offset, data[:-1])]


def _oversized(_: str, offset: int, data: bytes) -> list[tuple[int, bytes]]:
    return [(offset, data + b"x" * (1 + LIMITS.block_bytes))]


def _flipped(_: str, offset: int, data: bytes) -> list[tuple[int, bytes]]:
    return [(offset, bytes([data[0] ^ 1]) + data[1:])]


def _halves_swapped(_: str, offset: int, data: bytes) -> list[tuple[int, bytes]]:
    return [(offset, data[len(data) // 2 :] + data[: len(data) // 2])]


def _neighbours_swapped(model: bytes) -> Spoil:
    """The first two blocks of the model, each at the place of the other; everything else is right."""
    size = LIMITS.block_bytes
    swapped = [(0, model[size : 2 * size]), (size, model[:size])]

    def spoil(sha256: str, offset: int, data: bytes) -> list[tuple[int, bytes]]:
        return swapped if sha256 == sha256_of(model) and offset <= size else [(offset, data)]

    return spoil


def _duplicated(_: str, offset: int, data: bytes) -> list[tuple[int, bytes]]:
    return [(offset, data)] * 3


def _unasked(_: str, offset: int, data: bytes) -> list[tuple[int, bytes]]:
    return [(offset + 1, data), (offset + 10**12, data), (offset, data)]


class _Once:
    """Spoils a few blocks of each file, then no more."""

    def __init__(self, spoil: Spoil, times: int) -> None:
        self._spoil = spoil
        self._left: dict[tuple[str, int], int] = {}
        self._times = times

    def __call__(self, sha256: str, offset: int, data: bytes) -> list[tuple[int, bytes]]:
        left = self._left.setdefault((sha256, offset), self._times)
        self._left[sha256, offset] -= 1
        return self._spoil(sha256, offset, data) if left > 0 else [(offset, data)]


def _lost(_: str, offset: int, data: bytes) -> list[tuple[int, bytes]]:
    return [] if len(data) == LIMITS.block_bytes else [(offset, data)]


@pytest.mark.parametrize("spoil", [_truncated, _oversized, _flipped, _halves_swapped])
def test_blocks_that_are_always_wrong_are_refused(site: Site, spoil: Spoil) -> None:
    agent = site.agent()
    old, new = site.bundle("1"), site.bundle("2", seed=2, width=512)
    site.confirm(old)
    site.fleet.spoil = spoil
    report = site.refused(site.deploy(new))
    assert report.reason is not None and report.reason.code == "corrupt-data"
    site.assert_serves(agent, old)
    assert len(site.fleet.requests) < 30  # no storm
    site.fleet.spoil = None
    site.confirm(new)
    assert agent.infer("linear", _zeros(512))[0] == "2"


def test_blocks_at_the_places_of_others_are_refused(site: Site) -> None:
    agent = site.agent()
    old, new = site.bundle("1"), site.bundle("2", seed=2, width=8192)
    site.confirm(old)
    site.fleet.spoil = _neighbours_swapped((new.directory / MODEL).read_bytes())
    report = site.refused(site.deploy(new))
    assert report.reason is not None and report.reason.code == "corrupt-data"
    site.assert_serves(agent, old)


@pytest.mark.parametrize("spoil", [_truncated, _oversized, _flipped, _duplicated, _unasked, _lost])
def test_blocks_that_are_wrong_at_times_are_asked_for_again(site: Site, spoil: Spoil) -> None:
    agent = site.agent()
    new = site.bundle("2", width=8192, seed=3)  # 6 blocks
    site.fleet.spoil = _Once(spoil, 1)
    report = site.confirm(new, timeout_s=60)
    assert agent.infer("linear", _zeros(8192))[0] == "2"
    assert report.deployment is not None
    assert report.deployment.fetched_bytes + report.deployment.present_bytes == report.deployment.total_bytes


def _zeros(width: int) -> Any:
    import numpy as np

    return np.zeros((1, width), np.float32)


def test_a_generation_that_is_not_newer_is_ignored(site: Site) -> None:
    agent = site.agent()
    first, second = site.bundle("1"), site.bundle("2", seed=2)
    site.confirm(first)
    newest = site.deploy(second)
    site.fleet.wait_phase(newest, "confirmed")
    for generation in (1, newest):
        old = DesiredState(fleet=site.fleet.name, device="dev-1", generation=generation, bundle=first.reference)
        site.fleet.desire(old)
    assert site.fleet.wait_answer(site.fleet.command("ping")).outcome is Outcome.SUCCEEDED
    site.assert_serves(agent, second)
    agent.kill()
    agent.start()
    agent.wait_serving()
    assert site.fleet.wait_answer(site.fleet.command("ping")).outcome is Outcome.SUCCEEDED
    site.assert_serves(agent, second)


def test_messages_that_are_no_documents_are_ignored(site: Site) -> None:
    agent = site.agent()
    bundle = site.bundle("1")
    site.confirm(bundle)
    newer = DesiredState(fleet=site.fleet.name, device="dev-1", generation=50, bundle=None)
    elsewhere = newer.model_copy(update={"device": "dev-2"})
    other_fleet = newer.model_copy(update={"fleet": "other"})
    wrong = [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"schema_version": 9}',
        b"{}",
        newer.to_bytes(),
        site.fleet.signed(elsewhere),
        site.fleet.repository.message(other_fleet, "other"),
    ]
    for channel in (Channel.DESIRED, Channel.COMMAND, Channel.REFUSAL):
        for payload in wrong:
            site.fleet.send(Topic(site.fleet.name, "dev-1", channel), payload)
    assert site.fleet.wait_answer(site.fleet.command("ping")).outcome is Outcome.SUCCEEDED
    site.assert_serves(agent, bundle)
    assert "Traceback" not in agent.log_text()


def test_a_desired_state_without_a_bundle_ends_serving(site: Site) -> None:
    agent = site.agent()
    bundle = site.bundle("1")
    site.confirm(bundle)
    report = site.fleet.wait_phase(site.fleet.deploy(None), "confirmed")
    assert report.current is None and report.previous is None and not report.serving
    wait_until(lambda: not agent.worker_pids(), 20, "a worker runs though nothing is to run")
    assert not [path for path in (agent.state / "objects").rglob("*") if path.is_file()]
    site.confirm(site.bundle("2", seed=2))
    assert agent.infer("linear", _zeros(64))[0] == "2"
