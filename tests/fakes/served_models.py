"""A model served by real worker processes under a supervisor, for clients that know nothing of asyncio."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import psutil

from autoglm_edge_agent.config import InferenceSection
from autoglm_edge_agent.inference.control import ServingOrder
from autoglm_edge_agent.inference.listeners import address_text, reserve_grpc
from autoglm_edge_agent.inference.supervisor import Supervisor
from autoglm_edge_protocol.deployment import BundleReference, Installed, Reason

T = TypeVar("T")
PATIENCE_S = 60.0


class ServedModel:
    """The supervisor's event loop is a thread of its own."""

    def __init__(
        self,
        bundle: Path,
        reference: BundleReference,
        directory: Path,
        serving: ServingOrder = ServingOrder(),  # noqa: B008
        *,
        grpc: bool = False,
    ) -> None:
        self._grpc = reserve_grpc(InferenceSection(grpc="127.0.0.1:0")) if grpc else None
        if grpc:
            serving = serving.model_copy(update={"grpc": self.grpc_address})
        self._installed = Installed(bundle=reference, variant="fp32")
        self._bundles = {self._installed: bundle}
        self._serving = serving
        self.fast_path = directory / "inference.fast"
        self.unix_path = directory / "inference.sock"
        self._sockets: Sequence[socket.socket] = ()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="supervisor")
        self._supervisor: Supervisor | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where HTTP is spoken over TCP, as host and port."""
        host, port = self._sockets[0].getsockname()
        return f"{host}:{port}"

    @property
    def grpc_address(self) -> str:
        """Where gRPC is spoken, as host and port."""
        assert self._grpc is not None
        return address_text(self._grpc)

    @property
    def worker_pid(self) -> int:
        """The process that serves."""
        assert self._supervisor is not None
        worker = self._supervisor._worker
        assert worker is not None and worker.pid is not None
        return worker.pid

    def wait_until_it_computes(self) -> None:
        """Return once the worker is at work on a long request: nothing else takes it so much time."""
        worker = psutil.Process(self.worker_pid)
        before_s = worker.cpu_times().user
        while worker.cpu_times().user < before_s + 0.05:
            time.sleep(0.005)

    def kill_worker(self) -> int:
        """End the worker as a crash would; return which it was."""
        pid = self.worker_pid
        os.kill(pid, signal.SIGKILL)
        return pid

    def restart(self) -> None:
        """Replace the worker by a fresh one."""
        assert self._supervisor is not None
        self._do(self._supervisor.restart())

    def switch(self, bundle: Path, reference: BundleReference) -> None:
        """Serve another bundle from now on."""
        assert self._supervisor is not None
        self._installed = Installed(bundle=reference, variant="fp32")
        self._bundles[self._installed] = bundle
        self._do(self._supervisor.switch(self._installed))

    def __enter__(self) -> ServedModel:
        tcp = socket.create_server(("127.0.0.1", 0), backlog=128)
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        fast = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for listener, path in ((unix, self.unix_path), (fast, self.fast_path)):
            listener.bind(str(path))
            listener.listen(128)
        self._sockets = (tcp, unix, fast)
        self._thread.start()
        try:
            self._do(self._start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._do(self._stop())
        finally:
            self._end()

    async def _start(self) -> None:
        self._supervisor = Supervisor(
            self._bundles.__getitem__, self._sockets, 1, 30.0, 30.0, lambda *_: None, lambda: None, self._serving
        )
        await self._supervisor.switch(self._installed)
        assert self._supervisor.serving is not None
        self._keeping = asyncio.create_task(self._supervisor.keep(self._keep_it))

    async def _keep_it(self, installed: Installed, _reason: Reason) -> Installed:
        return installed

    async def _stop(self) -> None:
        assert self._keeping is not None and self._supervisor is not None
        self._keeping.cancel()
        await asyncio.wait({self._keeping})
        await self._supervisor.close()

    def _do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE_S)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()
        for each in self._sockets:
            each.close()
        if self._grpc is not None:
            self._grpc.close()
