"""Updates from a folder, such as a USB stick: what `autoglm-edge-agent update --from` and the running agent exchange.

The command leaves a request in the state directory; the agent, which may have no network at all, finds it, judges the
desired state on the stick as one that came over the wire, takes the files from the stick and says what became of it.

    FOLDER/desired/DEVICE.json        the signed message for this device, as it is on the wire
    FOLDER/metadata/, FOLDER/objects/ the fleet's folder `repository`
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from autoglm_edge_agent.cancellation import in_thread
from autoglm_edge_agent.errors import Hindrance, hindrance_of
from autoglm_edge_agent.trust.intake import Intake
from autoglm_edge_agent.trust.sources import read_at_most
from autoglm_edge_protocol.deployment import DeploymentReport, Reason
from autoglm_edge_protocol.documents import Document, parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import ProtocolError
from autoglm_edge_protocol.limits import LIMITS

log = logging.getLogger(__name__)

LOOK_S = 1.0
REQUEST_NAME, RESULT_NAME = "offline.json", "offline-result.json"
ENDED = ("confirmed", "failed")


class OfflineRequest(Document):
    """`offline.json`."""

    kind: ClassVar[str] = "request for an update from a folder"

    request_id: str
    folder: str


class OfflineResult(Document):
    """`offline-result.json`: what became of it; without a phase it was not begun."""

    kind: ClassVar[str] = "result of an update from a folder"

    request_id: str
    phase: str | None = None
    bundle: str | None = None
    reason: Reason | None = None


class Offline:
    """Looks for requests and serves them, one at a time; a later one takes the place of one that has not ended."""

    def __init__(
        self,
        directory: Path,
        disk: Disk,
        device: str,
        intake: Intake,
        report: Callable[[], DeploymentReport | None],
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._device = device
        self._intake = intake
        self._report = report
        self.folder: Path | None = None
        """The folder that is being read from; None when there is none."""

    async def run(self) -> None:
        """Serve requests, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._look()
            except OSError as error:
                log.warning("the update from a folder waits: %s", error)
            except Exception:
                log.exception("an update from a folder met a defect of the agent and is left aside")
                with contextlib.suppress(OSError):
                    self._disk.unlink(self._directory / REQUEST_NAME)

    async def _look(self) -> None:
        request = self._asked()
        if request is None:
            return
        self.folder = Path(request.folder)
        try:
            result = await self._serve(request)
        finally:
            self.folder = None
        if result is not None:
            self._disk.commit(self._directory / RESULT_NAME, result.to_bytes())
            if self._asked() == request:  # else it has made way for another one meanwhile
                self._disk.unlink(self._directory / REQUEST_NAME)

    def _asked(self) -> OfflineRequest | None:
        """Return the request that is there. Raises OSError."""
        path = self._directory / REQUEST_NAME
        if not path.is_file():
            return None
        try:
            return parse(OfflineRequest, path.read_bytes())
        except ProtocolError as error:
            log.warning("%s", error)
            self._disk.unlink(path)
            return None

    async def _serve(self, request: OfflineRequest) -> OfflineResult | None:
        """Return what became of a request; None when another one came before that was known."""
        assert self.folder is not None
        name = f"desired/{self._device}.json"
        message = await in_thread(read_at_most, self.folder / name, LIMITS.control_bytes)
        if message is None:
            refusal: Reason | None = Reason(code="not-found", message=f"{self.folder / name} is missing")
        else:
            refusal = await self._judge(message)
        if refusal is not None:
            return OfflineResult(request_id=request.request_id, reason=refusal)
        report = await self._ended(request)
        if report is None:
            return None
        bundle = str(report.bundle.id) if report.bundle else None
        return OfflineResult(request_id=request.request_id, phase=report.phase, bundle=bundle, reason=report.reason)

    async def _ended(self, request: OfflineRequest) -> DeploymentReport | None:
        # A folder that lacks something may never bring the update to its end: a better one must not wait for that.
        while self._asked() == request:
            report = self._report()
            if report is not None and report.phase in ENDED:
                return report
            await asyncio.sleep(LOOK_S)
        return None

    async def _judge(self, message: bytes) -> Reason | None:
        try:
            return await self._intake.take(message)
        except Hindrance as hindrance:
            return hindrance.reason
        except OSError as error:
            return hindrance_of(error).reason
