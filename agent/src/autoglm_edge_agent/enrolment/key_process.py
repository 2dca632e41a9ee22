"""The process with the device's key, as the agent sees it: started for one question, killed when it hangs."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from autoglm_edge_agent.enrolment.key_wire import KeyOrder, KeyResult
from autoglm_edge_agent.errors import Hindrance
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.errors import ProtocolError

SILENCE_S = 60.0
"""Loading cryptography takes some seconds on a small board."""


async def ask_key(key_file: Path, order: KeyOrder, silence_s: float = SILENCE_S) -> KeyResult:
    """Ask the process with the key in a file (an absolute path). Raises Hindrance (`key-failed`), OSError."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "autoglm_edge_agent.enrolment.key_work",
        str(key_file),
        cwd="/",  # Python would look for modules where it is started first
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    wrong = b""
    try:
        said, wrong = await asyncio.wait_for(process.communicate(order.to_bytes()), silence_s)
        result = parse(KeyResult, said)
    except (asyncio.TimeoutError, TimeoutError):
        raise Hindrance("key-failed", f"the process with the device's key hung for {silence_s:.0f} s") from None
    except ProtocolError:
        lines = wrong.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
        raise Hindrance("key-failed", f"the process with the device's key failed: {lines[-1][:300]}") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if order.given is None and result.csr is None:
        raise Hindrance("key-failed", result.problem or "no request for a certificate was made")
    return result
