"""Mosquitto, 2.0 and later: two listeners with an access list each.

Devices show a certificate, whose common name is their user name; boards without one see nothing but their own two
topics, named by their client id, which nobody else can guess. mosquitto.conf(5) has the words.
"""

from __future__ import annotations

from autoglm_edge_fleet.broker_access.plan import (
    AUTHORITY_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    REVOKED_FILE,
    BrokerPlan,
)
from autoglm_edge_fleet.broker_access.rights import (
    FLEET_USER,
    LARGEST_MESSAGE_BYTES,
    MOST_CONNECTED_BOARDS,
    SELF,
    Rights,
    board_rights,
    device_rights,
    fleet_rights,
)


def files(plan: BrokerPlan) -> dict[str, str]:
    """Return the text of each file by its name."""
    return {
        "mosquitto.conf": _configuration(plan),
        "devices.acl": _devices(plan.fleet),
        "enrolment.acl": "\n".join(_lines("pattern", board_rights(plan.fleet), "%c")) + "\n",
    }


def _configuration(plan: BrokerPlan) -> str:
    settings = plan.settings
    tls = f"certfile {plan.file(CERTIFICATE_FILE)}\nkeyfile {plan.file(KEY_FILE)}\n"
    return f"""\
# The fleet {plan.fleet}. Written by `autoglm-edge fleet broker config`: the next call loses what is changed here.
per_listener_settings true
set_tcp_nodelay true
message_size_limit {LARGEST_MESSAGE_BYTES}
# Of devices that are gone. One that was away for longer subscribes anew, and finds its desired state retained.
persistent_client_expiration 1m

# Devices, and the fleet itself: a certificate of the fleet's authority, and no other way in.
listener {settings.port} {settings.bind}
{tls}cafile {plan.file(AUTHORITY_FILE)}
crlfile {plan.file(REVOKED_FILE)}
require_certificate true
use_identity_as_username true
allow_anonymous false
acl_file {plan.file("devices.acl")}

# Boards that are to become devices: no certificate yet, and no rights but to ask.
listener {settings.enrolment_port} {settings.bind}
{tls}require_certificate false
allow_anonymous true
max_connections {MOST_CONNECTED_BOARDS}
acl_file {plan.file("enrolment.acl")}
"""


def _devices(fleet: str) -> str:
    lines = [f"user {FLEET_USER}", *_lines("topic", fleet_rights(fleet), ""), ""]
    return "\n".join([*lines, *_lines("pattern", device_rights(fleet), "%u")]) + "\n"


def _lines(kind: str, rights: Rights, name: str) -> list[str]:
    written = [f"{kind} write {each.replace(SELF, name)}" for each in rights.publish]
    return [*written, *(f"{kind} read {each.replace(SELF, name)}" for each in rights.subscribe)]
