"""The worker process: loads one variant, replays the golden set if asked, serves until told to drain.

Started by `process.WorkerProcess`; the only place where numpy and a runtime are loaded. It dies with the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

from autoglm_edge_agent.inference.access import guard_of, tls_of
from autoglm_edge_agent.inference.awake_selector import AwakeSelector
from autoglm_edge_agent.inference.backends import Session
from autoglm_edge_agent.inference.control import BEAT_S, LINE_BYTES, FromWorker, ToWorker, WorkerOrder, to_line
from autoglm_edge_agent.inference.errors import ModelUnusable
from autoglm_edge_agent.inference.fast_path import FastPath
from autoglm_edge_agent.inference.http import HttpServer
from autoglm_edge_agent.inference.lease import Lease
from autoglm_edge_agent.inference.messages import Request, Response
from autoglm_edge_agent.inference.model import Model, load
from autoglm_edge_agent.inference.oip import InferenceApi
from autoglm_edge_agent.inference.opening import replay
from autoglm_edge_agent.inference.parent import die_with
from autoglm_edge_agent.inference.sacrifice import BESIDE, SERVING, offer
from autoglm_edge_agent.inference.sampling import Sampler
from autoglm_edge_agent.inference.service import Service
from autoglm_edge_agent.inference.shadow import LOWEST_PRIORITY, Shadow
from autoglm_edge_agent.inference.shared_memory import SharedRegions
from autoglm_edge_agent.storage.lost_bytes import is_lost
from autoglm_edge_protocol import golden
from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.errors import ProtocolError
from autoglm_edge_protocol.manifest import Manifest, Variant

if TYPE_CHECKING:
    from autoglm_edge_agent.inference.grpc import GrpcServer

PLAIN_PROVIDERS = frozenset({"", "cpu", "xnnpack"})
"""What calculates on the processor, and does not care which thread asks."""


def disagreement(order: WorkerOrder, manifest: Manifest, variant: Variant, session: Session) -> Reason | None:
    """Replay the golden set; returns how the model disagrees with it, None when it agrees. Raises ProtocolError."""
    samples = golden.load(order.bundle / manifest.golden)
    try:
        violations = replay(samples, variant, session)
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
        """Raises ModelUnusable where the configuration of the access cannot be used."""
        self._order = order
        self._model = model
        serving = order.serving
        regions = SharedRegions() if serving.shared_memory and sys.platform == "linux" else None
        self._service = Service(model.manifest, model.variant, model.run, model.statistics, regions, model.run_at_once)
        self._api = InferenceApi(self._service)
        self._guard = guard_of(serving.access)
        self._http = HttpServer(self._answer, self._guard, tls_of(serving.access), self._at_once)
        self._grpc: GrpcServer | None = None
        self._serving = False

    async def run(self, control: socket.socket) -> None:
        """Serve until told to drain, or until the agent is gone."""
        reader, writer = await asyncio.open_connection(sock=control, limit=LINE_BYTES)
        self._fast = FastPath(self._model)
        writer.write(to_line(FromWorker(event="ready")))
        beats = asyncio.create_task(self._beat(writer))
        try:
            while line := await reader.readline():
                message = ToWorker.model_validate_json(line)
                if message.order == "serve" and not self._serving:
                    try:
                        await self._serve()
                    except ModelUnusable as error:
                        reason = Reason(code="model-unusable", message=str(error))
                        writer.write(to_line(FromWorker(event="failed", reason=reason)))
                        break
                    writer.write(to_line(FromWorker(event="serving")))
                elif message.order == "sample":
                    self._model.sampler.rate = message.rate
                elif message.order == "drain":
                    self._http.stop_accepting()
                    self._fast.stop_accepting()
                    ends = [] if self._grpc is None else [asyncio.ensure_future(self._grpc.drain())]
                    await asyncio.sleep(0)  # so that it has closed its own socket before anybody is told
                    writer.write(to_line(FromWorker(event="draining")))
                    await asyncio.gather(self._http.drain(), self._fast.drain(), *ends)
                    break
        finally:
            beats.cancel()
            with contextlib.suppress(OSError):
                writer.write(to_line(FromWorker(event="beat", beat=self._model.beat())))
                await writer.drain()
                writer.close()

    async def _serve(self) -> None:
        self._serving = True
        serving = self._order.serving
        if serving.grpc is not None:
            from autoglm_edge_agent.inference.grpc import GrpcServer  # needs the extra, and takes its time

            self._grpc = GrpcServer(self._service, self._guard, self._model.count)
            await self._grpc.start(serving.grpc, serving.access)
        listeners = [socket.socket(fileno=fd) for fd in self._order.listen_fds]
        for listener in listeners:
            listener.setblocking(False)
        self._http.start([each for each in listeners if each.type == socket.SOCK_STREAM])
        self._fast.start([each for each in listeners if each.type == socket.SOCK_SEQPACKET])

    async def _beat(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            writer.write(to_line(FromWorker(event="beat", beat=self._model.beat())))

    def _at_once(self, request: Request) -> Response | None:
        started = time.perf_counter()
        response = self._api.at_once(request)
        if response is not None:
            self._model.count((time.perf_counter() - started) * 1e6, response.status)
        return response

    async def _answer(self, request: Request) -> Response:
        started = time.perf_counter()
        response = await self._api.answer(request)
        if request.method == "POST" and request.target.endswith("/infer"):
            self._model.count((time.perf_counter() - started) * 1e6, response.status)
        return response


def main() -> None:
    """Entry point: one argument, a WorkerOrder in JSON."""
    order = WorkerOrder.model_validate_json(sys.argv[1])
    die_with(order.parent_pid)
    offer(SERVING if order.shadow is None else BESIDE)
    # Ctrl-C in a terminal goes to the whole group; the agent decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=order.control_fd)
    loaded = _load_and_try(order)
    if isinstance(loaded, Reason):
        control.sendall(to_line(FromWorker(event="failed", reason=loaded)))
        sys.exit(1)
    # As asyncio.run, which takes no selector.
    loop = asyncio.SelectorEventLoop(AwakeSelector())
    asyncio.set_event_loop(loop)
    loop.run_until_complete(loaded.run(control))
    os._exit(0)  # a runtime's own threads must not keep a drained worker


def _load_and_try(order: WorkerOrder) -> Worker | Shadow | Reason:
    samples = socket.socket(fileno=order.samples_fd)
    if order.shadow is not None:
        os.nice(LOWEST_PRIORITY)  # before the runtime starts threads of its own
    try:
        manifest, variant, session = load(order)
        if order.shadow is not None:
            return Shadow(order.shadow, variant, session, samples)
        reason = disagreement(order, manifest, variant, session) if order.trial else None
        if reason is not None:
            return reason
        serving = order.serving
        lease = None if serving.lease_file is None else Lease(serving.lease_file)
        anywhere = order.plan.options.provider in PLAIN_PROVIDERS
        model = Model(manifest, variant, session, Sampler(samples), serving.max_batch, lease, anywhere=anywhere)
        return Worker(order, model)
    except ModelUnusable as error:
        return Reason(code="model-unusable", message=str(error))
    except ProtocolError as error:
        return Reason(code="bad-bundle", message=str(error))
    except (OSError, MemoryError) as error:
        # What the disk has lost of the bundle does not come back by itself, as memory does.
        lost = isinstance(error, OSError) and is_lost(error)
        code = "bad-bundle" if lost else "worker-out-of-resources"
        return Reason(code=code, message=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
