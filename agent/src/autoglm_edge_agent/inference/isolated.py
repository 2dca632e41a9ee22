"""Asking a short-lived process something that may crash it or never end: a runtime, a driver, a third party's code.

The child is a module that is started with one JSON argument and calls `answer` once. What it prints goes nowhere: some
runtimes and drivers are talkative, and the answer has a pipe of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from autoglm_edge_agent.inference.parent import die_with
from autoglm_edge_agent.inference.sacrifice import BESIDE, offer

ANSWER_BYTES = 1024 * 1024
"""The longest answer that is read."""


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    how: Literal["answered", "failed", "crashed", "hung"]
    value: Any = None
    """The answer, of JSON types."""
    why: str = ""


async def ask(module: str, question: dict[str, Any], timeout_s: float) -> Outcome:
    """Start the module in a process of its own and wait for its answer; it is ended in any case. Raises OSError."""
    ours, theirs = os.pipe()
    process = None
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                json.dumps({"question": question, "fd": theirs, "parent": os.getpid()}),
                pass_fds=(theirs,),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # so that what it starts itself can be ended with it
                env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONSAFEPATH": "1"},
            )
        finally:
            os.close(theirs)
        return await asyncio.wait_for(_outcome(process, ours), timeout_s)
    except (asyncio.TimeoutError, TimeoutError):
        return Outcome("hung", why=f"no answer within {timeout_s:.0f} s")
    finally:
        os.close(ours)
        if process is not None:
            await _end(process)


async def _outcome(process: asyncio.subprocess.Process, fd: int) -> Outcome:
    code = await process.wait()
    os.set_blocking(fd, False)
    data = b""
    with contextlib.suppress(BlockingIOError):
        while len(data) < ANSWER_BYTES and (more := os.read(fd, ANSWER_BYTES)):
            data += more
    if code < 0:
        return Outcome("crashed", why=f"it was ended by {_signal(-code)}")
    try:
        answer = json.loads(data)
        if answer["how"] == "answered":
            return Outcome("answered", answer["value"])
        return Outcome("failed", why=str(answer["why"]))
    except (ValueError, KeyError, TypeError):
        return Outcome("crashed", why=f"it ended with exit code {code} and said nothing")


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def answer(function: Callable[[dict[str, Any]], Any], foreseen: type[Exception]) -> None:
    """In the child: answer the question that it was started with; an error that is foreseen is its answer too."""
    asked = json.loads(sys.argv[1])
    die_with(asked["parent"])
    offer(BESIDE)
    try:
        said: dict[str, Any] = {"how": "answered", "value": function(asked["question"])}
    except foreseen as error:
        said = {"how": "failed", "why": str(error)}
    except Exception as error:
        said = {"how": "failed", "why": f"{type(error).__name__}: {error}"[:2000]}
    data = json.dumps(said).encode()
    # The pipe holds 64 KiB on Linux and nobody reads before the end: an answer is far smaller.
    os.write(asked["fd"], data)
    os._exit(0)  # a runtime's own threads, or its end at exit, must not spoil an answer
