from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_agent.inference.control import Beat
from autoglm_edge_agent.telemetry.spool import Spool
from autoglm_edge_agent.telemetry.windows import InferenceWindows
from autoglm_edge_protocol.deployment import BundleReference, Installed
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.histogram import HistogramRecorder
from autoglm_edge_protocol.telemetry import TelemetryBatch


def _batch(sequence: int, size: int = 10) -> TelemetryBatch:
    return TelemetryBatch(device="d", boot_id="b" * (size % 64), sequence=sequence)


@given(st.integers(0, 2000), st.lists(st.one_of(st.integers(0, 63), st.none()), max_size=60))
def test_the_spool_is_bounded_counts_what_it_drops_and_shrinks(limit_bytes: int, moves: list[int | None]) -> None:
    spool = Spool(limit_bytes)
    put = sent = 0
    for move in moves:
        if move is None:
            oldest = spool.oldest()
            if oldest is not None:
                spool.sent(oldest[0] + 1)  # another: nothing happens
                spool.sent(oldest[0])
                sent += 1
        else:
            spool.put(_batch(put, move))
            put += 1
        assert spool.size_bytes <= limit_bytes
        oldest = spool.oldest()
        assert oldest is None or oldest[0] == sent + spool.dropped
    while (oldest := spool.oldest()) is not None:
        spool.sent(oldest[0])
        sent += 1
    assert spool.size_bytes == 0
    assert put == sent + spool.dropped


def _installed(version: str) -> Installed:
    reference = BundleReference(name="m", version=version, manifest_sha256=sha256_of(b"m"), manifest_size_bytes=1)
    return Installed(bundle=reference, variant="fp32")


def _beat(*latencies_us: float, errors: int = 0) -> Beat:
    recorder = HistogramRecorder()
    for latency_us in latencies_us:
        recorder.record(latency_us)
    return Beat(requests=len(latencies_us), errors=errors, rss_bytes=5, latency=recorder.take())


def test_windows_merge_beats_by_variant() -> None:
    windows = InferenceWindows(100.0)
    windows.add(_installed("1"), _beat(10, 20))
    windows.add(_installed("2"), _beat(1000, errors=1))
    windows.add(_installed("1"), _beat(40))
    windows.add(_installed("3"), _beat())
    first, second = windows.take(105.0)
    assert (first.bundle, first.requests, first.latency.count, first.duration_s) == ("m@1", 3, 3, 5.0)
    assert first.latency.max_us == 40 and first.latency.sum_us == 70
    assert (second.bundle, second.requests, second.errors) == ("m@2", 1, 1)
    assert windows.take(104.0) == ()
    windows.add(_installed("1"), _beat(7))
    (after,) = windows.take(90.0)  # the clock was set back
    assert (after.requests, after.duration_s, after.started_at) == (1, 0.0, 104.0)
    assert windows.worker_rss_bytes == 5
