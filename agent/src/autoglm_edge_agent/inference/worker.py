"""The worker process: loads one variant, replays the golden set if asked, serves until told to drain.

Started by `process.WorkerProcess`; the only place where numpy and a runtime are loaded. It dies with the agent.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ctypes
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import psutil

from autoglm_edge_agent.inference.backends import BACKENDS, DATATYPES, Session
from autoglm_edge_agent.inference.control import BEAT_S, LINE_BYTES, Beat, FromWorker, ToWorker, WorkerOrder, to_line
from autoglm_edge_agent.inference.errors import ModelUnusable, RequestError
from autoglm_edge_agent.inference.http import HttpServer
from autoglm_edge_agent.inference.oip import InferenceApi, Response
from autoglm_edge_protocol import golden
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.errors import ProtocolError
from autoglm_edge_protocol.histogram import HistogramRecorder
from autoglm_edge_protocol.manifest import Manifest, Variant

Array = npt.NDArray[Any]

MAX_WAITING = 64
"""Requests that may wait for the model; one more is answered 503 at once."""
_PR_SET_PDEATHSIG = 1


class Model:
    """A loaded variant that runs one inference at a time, and counts."""

    def __init__(self, manifest: Manifest, variant: Variant, session: Session) -> None:
        self.manifest = manifest
        self.variant = variant
        self._session = session
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "inference")
        self._waiting = 0
        self._run_since: float | None = None
        self._latency = HistogramRecorder()
        self._errors = 0

    async def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run the model. Raises RequestError: 503 when too many wait, 400 when the runtime refuses the inputs."""
        if self._waiting >= MAX_WAITING:
            raise RequestError(503, f"{MAX_WAITING} requests are waiting for the model already")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, inputs)
        except ValueError as error:
            raise RequestError(400, f"the model refused the inputs: {error}") from None
        finally:
            self._waiting -= 1

    def count(self, latency_us: float, status: int) -> None:
        """Count an answered inference request."""
        self._latency.record(latency_us)
        self._errors += status >= 400

    def beat(self) -> Beat:
        """Return what was counted since the last beat."""
        latency, errors, since = self._latency.take(), self._errors, self._run_since
        self._errors = 0
        return Beat(
            requests=latency.count,
            errors=errors,
            busy_s=0.0 if since is None else time.monotonic() - since,
            rss_bytes=psutil.Process().memory_info().rss,
            latency=latency,
        )

    def _run(self, inputs: Sequence[Array]) -> list[Array]:
        self._run_since = time.monotonic()
        try:
            return self._session.run(inputs)
        finally:
            self._run_since = None


def load(order: WorkerOrder) -> tuple[Manifest, Variant, Session]:
    """Load the variant. Raises ModelUnusable, ProtocolError, OSError."""
    manifest = read_manifest(order.bundle)
    variant = manifest.variant(order.variant)
    if variant is None:
        raise ModelUnusable(f"{manifest.id} has no variant {order.variant}")
    if strange := [t.datatype for t in (*variant.inputs, *variant.outputs) if t.datatype not in (*DATATYPES, "BYTES")]:
        raise ModelUnusable(f"the datatype {strange[0]} is unknown here")
    open_session = BACKENDS.get(variant.needs.runtime)
    if open_session is None:
        raise ModelUnusable(f"the runtime {variant.needs.runtime} is unknown here")
    inputs, outputs = [t.name for t in variant.inputs], [t.name for t in variant.outputs]
    ops = [order.bundle / path for path in variant.needs.custom_ops.get(platform.machine(), ())]
    return manifest, variant, open_session(order.bundle / variant.model, inputs, outputs, order.threads, ops)


def disagreement(order: WorkerOrder, manifest: Manifest, variant: Variant, session: Session) -> Reason | None:
    """Replay the golden set; returns how the model disagrees with it, None when it agrees. Raises ProtocolError."""
    samples = golden.load(order.bundle / manifest.golden)
    try:
        violations = golden.replay(samples, variant.tolerances, session.run)
    except (ValueError, IndexError) as error:
        return Reason(code="golden-disagreement", message=f"the golden set cannot be replayed: {error}")
    if not violations:
        return None
    text = "; ".join(f"{violation.output}: {violation.message}" for violation in violations)
    return Reason(
        code="golden-disagreement", message=f"{manifest.id} {variant.id} on {len(samples)} inputs: {text}"[:2000]
    )


class Worker:
    """The process's event loop: control messages on one side, requests on the other."""

    def __init__(self, order: WorkerOrder, model: Model) -> None:
        self._order = order
        self._model = model
        self._api = InferenceApi(model.manifest, model.variant, model.run)
        self._http = HttpServer(self._answer)
        self._serving = False

    async def run(self, control: socket.socket) -> None:
        """Serve until told to drain, or until the agent is gone."""
        reader, writer = await asyncio.open_connection(sock=control, limit=LINE_BYTES)
        writer.write(to_line(FromWorker(event="ready")))
        beats = asyncio.create_task(self._beat(writer))
        try:
            while line := await reader.readline():
                message = ToWorker.model_validate_json(line)
                if message.order == "serve" and not self._serving:
                    self._serve()
                    writer.write(to_line(FromWorker(event="serving")))
                elif message.order == "drain":
                    self._http.stop_accepting()
                    writer.write(to_line(FromWorker(event="draining")))
                    await self._http.drain()
                    break
        finally:
            beats.cancel()
            with contextlib.suppress(OSError):
                writer.write(to_line(FromWorker(event="beat", beat=self._model.beat())))
                await writer.drain()
                writer.close()

    def _serve(self) -> None:
        self._serving = True
        listeners = [socket.socket(fileno=fd) for fd in self._order.listen_fds]
        for listener in listeners:
            listener.setblocking(False)
        self._http.start(listeners)

    async def _beat(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            writer.write(to_line(FromWorker(event="beat", beat=self._model.beat())))

    async def _answer(self, method: str, target: str, body: bytes) -> Response:
        started = time.perf_counter()
        response = await self._api.answer(method, target, body)
        if method == "POST":
            self._model.count((time.perf_counter() - started) * 1e6, response.status)
        return response


def main() -> None:
    """Entry point: one argument, a WorkerOrder in JSON."""
    order = WorkerOrder.model_validate_json(sys.argv[1])
    _die_with(order.parent_pid)
    # Ctrl-C in a terminal goes to the whole group; the agent decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=order.control_fd)
    loaded = _load_and_try(order)
    if isinstance(loaded, Reason):
        control.sendall(to_line(FromWorker(event="failed", reason=loaded)))
        sys.exit(1)
    asyncio.run(Worker(order, loaded).run(control))
    os._exit(0)  # a runtime's own threads must not keep a drained worker


def _load_and_try(order: WorkerOrder) -> Model | Reason:
    try:
        manifest, variant, session = load(order)
        reason = disagreement(order, manifest, variant, session) if order.trial else None
    except ModelUnusable as error:
        return Reason(code="model-unusable", message=str(error))
    except ProtocolError as error:
        return Reason(code="bad-bundle", message=str(error))
    except (OSError, MemoryError) as error:
        return Reason(code="worker-out-of-resources", message=f"{type(error).__name__}: {error}")
    return reason or Model(manifest, variant, session)


def _die_with(parent_pid: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        sys.exit(1)  # the agent died before the line above


if __name__ == "__main__":
    main()
