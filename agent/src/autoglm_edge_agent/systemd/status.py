"""The line in which the service manager shows what the agent is about."""

from __future__ import annotations

from autoglm_edge_protocol.deployment import DeploymentReport, Installed

_OVER = frozenset({"idle", "confirmed"})


def status_text(
    current: Installed | None, serving: Installed | None, deployment: DeploymentReport | None, *, connected: bool
) -> str:
    """Return it."""
    parts = [_model(current, serving)]
    if deployment is not None and deployment.phase not in _OVER:
        what = f"update to {deployment.bundle.id}" if deployment.bundle else "update"
        reason = f" ({deployment.reason.code})" if deployment.reason else ""
        parts.append(f"{what}: {deployment.phase}{reason}")
    if not connected:
        parts.append("not connected to the broker")
    return "; ".join(parts)


def _model(current: Installed | None, serving: Installed | None) -> str:
    if serving is not None:
        return f"{serving.bundle.id} ({serving.variant}) serves"
    return "no model yet" if current is None else f"{current.bundle.id} ({current.variant}) does not serve"
