"""What the fleet's commands print for scripts, where more than one prints it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from autoglm_edge_fleet.deployments import Deployment
from autoglm_edge_fleet.fleet import DeviceStatus


def device_json(status: DeviceStatus) -> dict[str, Any]:
    """Return a device with its newest deployment and its telemetry."""
    device, deployment, telemetry = status.device, status.deployment, status.telemetry
    row: dict[str, Any] = {
        "name": device.name,
        "online": device.online,
        "last_seen_at": device.last_seen_at,
        "generation": device.generation,
        "sent_bytes": device.sent_bytes,
        "sent_blocks": device.sent_blocks,
        "report": device.report.model_dump(mode="json") if device.report else None,
        "deployment": None,
        "telemetry": None,
    }
    if deployment:
        row["deployment"] = deployment_json(deployment)
    if telemetry:
        newest = telemetry.newest.model_dump() if telemetry.newest else None
        row["telemetry"] = asdict(telemetry) | {"newest": newest}
    return row


def deployment_json(deployment: Deployment) -> dict[str, Any]:
    """Return a deployment and how far it is."""
    reason = deployment.reason.model_dump() if deployment.reason else None
    values = asdict(deployment) | {"bundle": str(deployment.bundle), "reason": reason}
    return values | {"fraction": deployment.fraction, "ended": deployment.ended, "succeeded": deployment.succeeded}
