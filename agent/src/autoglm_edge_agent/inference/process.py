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

from autoglm_edge_agent.errors import WorkerError
from autoglm_edge_agent.inference.control import BEAT_S, LINE_BYTES, Beat, FromWorker, ToWorker, WorkerOrder, to_line
from autoglm_edge_protocol.deployment import Installed, Reason

log = logging.getLogger(__name__)

BEAT_TIMEOUT_S = 10 * BEAT_S
"""Silence after which a worker that was ready counts as hung."""
DRAIN_S = 10.0
SERVE_TIMEOUT_S = 10.0


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
        self._serving = asyncio.Event()
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
        self, bundle: Path, listeners: Sequence[socket.socket], *, threads: int, trial: bool, timeout_s: float
    ) -> None:
        """Start the process and wait until it has loaded the model.

        Raises WorkerError with what the worker said, or `worker-crashed`, `worker-timeout`, `worker-not-started`.
        """
        try:
            await asyncio.wait_for(self._start(bundle, listeners, threads, trial), timeout_s)
        except (asyncio.TimeoutError, TimeoutError):
            await self.kill()
            raise WorkerError("worker-timeout", f"the model was not ready within {timeout_s:.0f} s") from None
        except OSError as error:
            raise WorkerError("worker-not-started", f"the worker process could not be started: {error}") from None
        except BaseException:
            await self.kill()
            raise

    async def _start(self, bundle: Path, listeners: Sequence[socket.socket], threads: int, trial: bool) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            order = WorkerOrder(
                bundle=bundle,
                variant=self.installed.variant,
                trial=trial,
                threads=threads,
                control_fd=theirs.fileno(),
                parent_pid=os.getpid(),
                listen_fds=tuple(listener.fileno() for listener in listeners),
            )
            try:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "autoglm_edge_agent.inference.worker",
                    order.model_dump_json(),
                    pass_fds=(order.control_fd, *order.listen_fds),
                    stdin=asyncio.subprocess.DEVNULL,
                    env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"},
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
        try:
            await asyncio.wait_for(self._serving.wait(), SERVE_TIMEOUT_S)
        except (asyncio.TimeoutError, TimeoutError):
            await self.kill()
            raise WorkerError("worker-timeout", "the worker did not begin to serve") from None

    async def drain(self) -> None:
        """Let the worker finish what it accepted and end; kill it when it takes too long."""
        self._draining = True
        self._send(ToWorker(order="drain"))
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.ended), DRAIN_S)
        await self.kill()

    async def kill(self) -> None:
        """End the process at once and wait for its end."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._follower is not None:
            await asyncio.wait({self._follower})

    def _send(self, message: ToWorker) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(to_line(message))

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await asyncio.wait_for(reader.readline(), BEAT_TIMEOUT_S if self._ready.done() else None):
                self._take(FromWorker.model_validate_json(line))
        except (asyncio.TimeoutError, TimeoutError):
            self._failure = Reason(code="worker-hung", message=f"the worker was silent for {BEAT_TIMEOUT_S:.0f} s")
        except (ValueError, OSError) as error:
            self._failure = Reason(code="worker-crashed", message=f"the worker spoke nonsense: {error}")
        await self._finish()

    async def _finish(self) -> None:
        assert self._process is not None
        assert self._writer is not None
        self._writer.close()
        with contextlib.suppress(ProcessLookupError):
            if self._process.returncode is None and (self._failure is not None or not self._draining):
                self._process.kill()
        code = await self._process.wait()
        reason = self._failure or Reason(code="worker-crashed", message=f"the worker ended with {_status(code)}")
        if not self._ready.done():
            self._ready.set_exception(WorkerError(reason.code, reason.message))
            self._ready.exception()  # looked at, so that nobody waiting is no warning
        if not self.ended.done():
            self.ended.set_result(reason)

    def _take(self, message: FromWorker) -> None:
        if message.event == "failed":
            self._failure = message.reason
        elif message.event == "ready" and not self._ready.done():
            self._ready.set_result(None)
        elif message.event == "serving":
            self._serving.set()
        elif message.beat is not None:
            self._on_beat(self.installed, message.beat)
            if message.beat.busy_s > self._run_timeout_s:
                text = f"one inference took more than {self._run_timeout_s:.0f} s"
                self._failure = Reason(code="worker-hung", message=text)
                assert self._process is not None
                self._process.kill()


def _status(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
