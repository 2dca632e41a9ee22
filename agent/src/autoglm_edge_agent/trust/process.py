"""The verifier's process, as the agent sees it: started for one message, served with metadata, killed when it hangs.

No verdict is a hindrance and never an acceptance, whatever the process died of.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from autoglm_edge_agent.errors import Hindrance
from autoglm_edge_agent.trust.wire import (
    FOUND,
    FRAME_BYTES,
    LENGTH,
    MISSING,
    TOO_LARGE,
    Ask,
    FromVerifier,
    Question,
    Verdict,
    parse_frame,
)
from autoglm_edge_protocol.errors import ProtocolError
from autoglm_edge_protocol.limits import LIMITS

SILENCE_S = 60.0
"""How long the verifier may compute between two frames: half a second on a desktop, some ten on a small board."""
_MOST_ASKED = LIMITS.metadata_files + 16
_STDERR_BYTES = 4096

Read = Callable[[str, int], Awaitable[bytes | None]]
"""(name of a metadata file, its greatest length in bytes) -> its bytes, up to one more than that; None: there is none.

Raises Hindrance, OSError."""


async def verify(question: Question, directory: Path, read: Read, silence_s: float = SILENCE_S) -> Verdict:
    """Let a message be judged by the metadata in a directory (an absolute path), which then holds what was learned.

    Raises Hindrance (`verifier-failed`, and those of `read`), OSError.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "autoglm_edge_agent.trust.verifier",
        str(directory),
        cwd="/",  # Python would look for modules where it is started first, and that may be anybody's stick
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    stderr = asyncio.ensure_future(_last_line(process.stderr))
    try:
        return await _converse(process, question, read, silence_s)
    except (EOFError, ConnectionError, ProtocolError):
        await _end(process)
        said = await stderr or f"exit code {process.returncode}"
        raise Hindrance("verifier-failed", f"the check of a signature came to no end: {said}") from None
    except (asyncio.TimeoutError, TimeoutError):
        raise Hindrance("verifier-failed", f"the check of a signature hung for {silence_s:.0f} s") from None
    finally:
        await _end(process)
        stderr.cancel()
        await asyncio.gather(stderr, return_exceptions=True)


async def _converse(process: asyncio.subprocess.Process, question: Question, read: Read, silence_s: float) -> Verdict:
    assert process.stdin is not None and process.stdout is not None
    await asyncio.wait_for(_write(process.stdin, question.to_bytes()), silence_s)
    for _ in range(_MOST_ASKED):
        said = parse_frame(FromVerifier, await asyncio.wait_for(_read(process.stdout), silence_s))
        if said.verdict is not None:
            return said.verdict
        if (ask := said.ask) is None:
            raise EOFError("it says nothing")
        await asyncio.wait_for(_write(process.stdin, _answer(await read(ask.name, ask.max_bytes), ask)), silence_s)
    raise EOFError("it asks for ever more files")


def _answer(data: bytes | None, ask: Ask) -> bytes:
    if data is None:
        return MISSING
    return FOUND + data if len(data) <= ask.max_bytes else TOO_LARGE


async def _write(pipe: asyncio.StreamWriter, data: bytes) -> None:
    pipe.write(LENGTH.pack(len(data)) + data)
    await pipe.drain()


async def _read(pipe: asyncio.StreamReader) -> bytes:
    (size,) = LENGTH.unpack(await pipe.readexactly(LENGTH.size))
    if size > FRAME_BYTES:
        raise EOFError(f"a frame of {size} bytes")
    return await pipe.readexactly(size)


async def _last_line(pipe: asyncio.StreamReader) -> str:
    kept = b""
    while piece := await pipe.read(_STDERR_BYTES):
        kept = (kept + piece)[-_STDERR_BYTES:]
    lines = kept.decode(errors="replace").strip().splitlines()
    return "".join(character if character.isprintable() else "?" for character in lines[-1][:300]) if lines else ""


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
