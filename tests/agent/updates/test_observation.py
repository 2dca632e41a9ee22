from __future__ import annotations

from autoglm_edge_agent.inference.control import Beat
from autoglm_edge_agent.updates.observation import REMEMBERED_S, SUSTAINED, Observation
from autoglm_edge_agent.updates.probation import Baseline, Evidence, Readings
from autoglm_edge_protocol.deployment import BundleReference, Installed
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.histogram import HistogramRecorder


def _installed(version: str) -> Installed:
    digest = sha256_of(version.encode())
    reference = BundleReference(name="m", version=version, manifest_sha256=digest, manifest_size_bytes=1)
    return Installed(bundle=reference, variant="fp32")


def _beat(requests: int, run_us: float = 1000.0, **more: int) -> Beat:
    recorder = HistogramRecorder()
    for _ in range(requests):
        recorder.record(run_us)
    return Beat.model_validate({"requests": requests, "run": recorder.take(), **more})


OLD, NEW = _installed("1"), _installed("2")


def test_only_what_is_watched_is_counted_and_each_thing_once() -> None:
    seen = Observation()
    seen.beat(OLD, _beat(5), 0.0)
    seen.crashed(NEW)
    seen.watch(NEW)
    seen.beat(NEW, _beat(3, errors=1), 1.0)
    seen.beat(OLD, _beat(2), 1.0)
    seen.crashed(NEW)
    seen.crashed(OLD)
    seen.shadow_beat(Beat(compared=4, differed=1.5))
    taken = seen.take(NEW)
    assert (taken.requests, taken.errors, taken.crashes, taken.compared, taken.differed) == (3, 1, 1, 4, 1.5)
    assert taken.run.count == 3
    assert seen.take(NEW) == Evidence()


def test_the_model_before_is_remembered_for_a_while() -> None:
    seen = Observation()
    for second in range(1, 1001):
        seen.beat(OLD, _beat(1, run_us=1000.0 if second < 100 else 4000.0, errors=second % 2), float(second))
    baseline = seen.baseline(OLD, 50.0)
    assert REMEMBERED_S <= baseline.requests <= 2 * REMEMBERED_S
    assert baseline.run_us is not None and 3900 < baseline.run_us <= 4000  # what was slower long ago is forgotten
    assert baseline.errors == baseline.requests // 2
    assert seen.baseline(NEW, None) == seen.baseline(None, None) == Baseline()


def test_only_few_models_are_remembered() -> None:
    seen = Observation()
    for number in range(50):
        seen.beat(_installed(str(number)), _beat(1), float(number))
    known = [seen.baseline(_installed(str(number)), None).requests for number in range(50)]
    assert sum(known) == 2 and known[-2:] == [1, 1]


def test_a_moment_decides_nothing() -> None:
    seen = Observation()
    seen.watch(NEW)
    for value in range(SUSTAINED - 1):
        seen.beat(NEW, _beat(0, rss_bytes=100 + value), 0.0)
        seen.warmth(70.0 + value)
    assert seen.readings() == Readings()
    seen.beat(NEW, _beat(0, rss_bytes=7), 0.0)
    seen.warmth(None)
    seen.warmth(99.0)
    assert seen.readings() == Readings(7, 70.0)
