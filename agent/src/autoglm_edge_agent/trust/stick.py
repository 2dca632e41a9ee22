"""The other end of an update from a folder: what `autoglm-edge-agent update --from` does."""

from __future__ import annotations

import fcntl
import time
import uuid
from pathlib import Path

from autoglm_edge_agent.errors import StateError
from autoglm_edge_agent.trust.offline import REQUEST_NAME, RESULT_NAME, OfflineRequest, OfflineResult
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.durable import Disk

_LOOK_S = 0.2


def update_from(
    directory: Path, device: str, folder: Path, timeout_s: float, disk: Disk | None = None
) -> OfflineResult:
    """Ask the running agent for an update from a folder, and wait for what becomes of it.

    Raises StateError when there is no such folder, none with such a name can be told to the agent, no agent runs or
    there is no end in time; OSError.
    """
    message = folder / "desired" / f"{device}.json"
    if not message.is_file():
        raise StateError(f"{message} is missing: this folder holds no update for {device}; see docs/agent.md")
    _check_running(directory)
    disk, request = disk or Disk(), OfflineRequest(request_id=uuid.uuid4().hex, folder=_name(folder.resolve()))
    disk.unlink(directory / RESULT_NAME)
    disk.commit(directory / REQUEST_NAME, request.to_bytes())
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        result = _read(directory, request)
        if result is not None:
            return result
        time.sleep(_LOOK_S)
    raise StateError(f"the update did not end within {timeout_s:.0f} s; the agent goes on with it, see its log")


def _name(folder: Path) -> str:
    name = str(folder)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise StateError(f"{name!a} is not UTF-8: mount the stick, or copy the folder, under another name") from None
    return name


def _read(directory: Path, request: OfflineRequest) -> OfflineResult | None:
    try:
        result = parse(OfflineResult, (directory / RESULT_NAME).read_bytes())
    except FileNotFoundError:
        return None
    return result if result.request_id == request.request_id else None


def _check_running(directory: Path) -> None:
    try:
        with (directory / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # the agent has it
    except FileNotFoundError:
        pass
    raise StateError(f"no agent is running on {directory}: start it, then ask again")
