"""One worker process, as the agent sees it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from autoglm_edge_agent.errors import WorkerError
from autoglm_edge_agent.inference.control import (
    BEAT_S,
    LINE_BYTES,
    Beat,
    FromWorker,
    ServingOrder,
    ShadowOrder,
    ToWorker,
    WorkerOrder,
    to_line,
)
from autoglm_edge_agent.inference.options import Plan
from autoglm_edge_protocol.deployment import Installed, Reason

log = logging.getLogger(__name__)

BEAT_TIMEOUT_S = 30 * BEAT_S
"""Silence after which a worker that was ready counts as hung."""
DRAIN_S = 10.0
"""How long a worker may take to finish what it accepted when the agent itself ends."""
SERVE_TIMEOUT_S = 10.0
HANDOVER_S = 2.0
"""How long to wait for the old worker's word that it accepts no more; one that is busy may be late with it."""
EXIT_S = 1.0
"""How long a process may take to end after it has closed its side of the control socket."""


class WorkerProcess:
    """Starts a worker and follows it until it ends.

    Args:
        on_beat: called with each beat.
        run_timeout_s: an inference that takes longer means a hung worker.
    """

    def __init__(self, installed: Installed, on_beat: Callable[[Installed, Beat], None], run_timeout_s: float) -> None:
        self.installed = installed
        self.ended: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
        self._on_beat = on_beat
        self._run_timeout_s = run_timeout_s
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._serving: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._accepts_no_more: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._draining = False
        self._failure: Reason | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._follower: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, once started."""
        return self._process.pid if self._process else None

    async def start(
        self,
        bundle: Path,
        listeners: Sequence[socket.socket],
        samples: socket.socket,
        *,
        plan: Plan | None = None,
        trial: bool = False,
        serving: ServingOrder = ServingOrder(),  # noqa: B008
        shadow: ShadowOrder | None = None,
        timeout_s: float,
    ) -> None:
        """Start the process and wait until it has loaded the model.

        With `shadow` it serves nobody, and `samples` is where it takes its inputs from; else it is where some of the
        inputs go.

        Raises WorkerError with what the worker said, or `worker-crashed`, `worker-timeout`, `worker-not-started`.
        """
        order = WorkerOrder(
            bundle=bundle,
            variant=self.installed.variant,
            trial=trial,
            plan=plan or Plan(),
            control_fd=-1,
            parent_pid=os.getpid(),
            listen_fds=tuple(listener.fileno() for listener in listeners),
            samples_fd=samples.fileno(),
            serving=serving,
            shadow=shadow,
        )
        try:
            await asyncio.wait_for(self._start(order), timeout_s)
        except BaseException as error:
            await self.kill()
            if isinstance(error, asyncio.TimeoutError | TimeoutError):
                raise WorkerError("worker-timeout", f"the model was not ready within {timeout_s:.0f} s") from None
            if isinstance(error, OSError):
                raise WorkerError("worker-not-started", f"the worker process could not be started: {error}") from None
            raise

    async def _start(self, order: WorkerOrder) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            order = order.model_copy(update={"control_fd": theirs.fileno()})
            try:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "autoglm_edge_agent.inference.worker",
                    order.model_dump_json(),
                    pass_fds=(order.control_fd, order.samples_fd, *order.listen_fds),
                    stdin=asyncio.subprocess.DEVNULL,
                    env={
                        **os.environ,
                        "ORT_DISABLE_TELEMETRY": "1",
                        "PYTHONUNBUFFERED": "1",
                        "PYTHONSAFEPATH": "1",  # the agent may have been started in anybody's directory
                    },
                )
            except BaseException:
                ours.close()
                raise
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES)
        self._follower = asyncio.create_task(self._follow(reader))
        await asyncio.shield(self._ready)

    async def serve(self) -> None:
        """Let the worker accept connections. Raises WorkerError when it does not begin to."""
        self._send(ToWorker(order="serve"))
        either: set[asyncio.Future[Any]] = {self._serving, self.ended}
        await asyncio.wait(either, timeout=SERVE_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if self.ended.done():
            raise WorkerError(self.ended.result().code, self.ended.result().message)
        if not self._serving.done():
            await self.kill()
            raise WorkerError("worker-timeout", "the worker did not begin to serve")

    def sample(self, rate: float) -> None:
        """Let the worker hand this share of its inputs on as samples."""
        self._send(ToWorker(order="sample", rate=rate))

    async def accepts_no_more(self) -> None:
        """Wait, while it drains, until every new connection is another worker's."""
        either: set[asyncio.Future[Any]] = {self._accepts_no_more, self.ended}
        await asyncio.wait(either, timeout=HANDOVER_S, return_when=asyncio.FIRST_COMPLETED)

    async def drain(self, timeout_s: float = DRAIN_S) -> None:
        """Let the worker finish what it accepted and end; kill it when it takes too long."""
        self._draining = True
        self._send(ToWorker(order="drain"))
        await asyncio.wait({self.ended}, timeout=timeout_s)
        await self.kill()

    async def kill(self) -> None:
        """End the process at once and wait for its end."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._follower is not None:
            await asyncio.wait({self._follower})
        if not self.ended.done():  # it never came so far that somebody followed it
            self.ended.set_result(Reason(code="worker-not-started", message="the worker was ended before it began"))

    def _send(self, message: ToWorker) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(to_line(message))

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await self._next_line(reader):
                self._take(FromWorker.model_validate_json(line))
        except (asyncio.TimeoutError, TimeoutError):
            self._failure = Reason(code="worker-hung", message=f"the worker was silent for {BEAT_TIMEOUT_S:.0f} s")
        except Exception as error:  # whatever it is: a worker that nobody follows would be believed to serve for ever
            self._failure = Reason(code="worker-crashed", message=f"the worker spoke nonsense: {error}"[:2000])
        await self._finish()

    async def _next_line(self, reader: asyncio.StreamReader) -> bytes:
        """Return the next message, nothing at the end. Raises TimeoutError when a worker that was ready is silent."""
        if not self._ready.done():
            return await reader.readline()
        reading = asyncio.ensure_future(reader.readline())
        try:
            # In two parts: after the agent itself was held up (a slow disk, a stopped process) the first is over at
            # once, while what the worker said meanwhile still waits to be read.
            for _ in range(2):
                if (await asyncio.wait({reading}, timeout=BEAT_TIMEOUT_S / 2))[0]:
                    return reading.result()
            raise TimeoutError
        finally:
            reading.cancel()

    async def _finish(self) -> None:
        assert self._process is not None
        assert self._writer is not None
        self._writer.close()
        exited = asyncio.ensure_future(self._process.wait())
        if self._failure is None:
            # It closed its side because it ends. Not killed at once, so that how it ended can be told.
            await asyncio.wait({exited}, timeout=DRAIN_S if self._draining else EXIT_S)
        if not exited.done():
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        code = await exited
        reason = self._failure or Reason(code="worker-crashed", message=f"the worker ended with {_status(code)}")
        if not self._ready.done():
            self._ready.set_exception(WorkerError(reason.code, reason.message))
            self._ready.exception()  # looked at, so that nobody waiting is no warning
        if not self.ended.done():
            self.ended.set_result(reason)

    def _take(self, message: FromWorker) -> None:
        if message.beat is not None:
            self._take_beat(message.beat)
        elif message.event == "failed":
            self._failure = message.reason
        elif message.event == "ready" and not self._ready.done():
            self._ready.set_result(None)
        elif message.event == "serving" and not self._serving.done():
            self._serving.set_result(None)
        elif message.event == "draining" and not self._accepts_no_more.done():
            self._accepts_no_more.set_result(None)

    def _take_beat(self, beat: Beat) -> None:
        self._on_beat(self.installed, beat)
        if beat.busy_s > self._run_timeout_s:
            text = f"one inference took more than {self._run_timeout_s:.0f} s"
            self._failure = Reason(code="worker-hung", message=text)
            assert self._process is not None
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


def _status(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
