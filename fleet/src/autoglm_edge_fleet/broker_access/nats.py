"""NATS, 2.10 and later: two servers on one machine, since one has a single MQTT listener.

The first serves devices with mutual TLS and knows each by the subject of its certificate, so that it has to be told of
every device; the second serves boards that are none yet, is a leaf of the first, and keeps nothing itself. A reload
(`nats-server --signal reload=PID`) takes new devices in and ends the connections of those that are gone.
docs.nats.io has the words: MQTT, leaf nodes, TLS authentication.
"""

from __future__ import annotations

import json

from autoglm_edge_fleet.broker_access.plan import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, BrokerPlan
from autoglm_edge_fleet.broker_access.rights import (
    FLEET_USER,
    LARGEST_MESSAGE_BYTES,
    SELF,
    Rights,
    board_rights,
    device_rights,
    fleet_rights,
)
from autoglm_edge_fleet.enrolment.authority import serial_number

_ACCOUNT = "FLEET"
_DOMAIN = "fleet"
_DELIVERY = "$MQTT.sub.>"
"""Where NATS itself delivers what an MQTT client has subscribed to at QoS 1."""


def files(plan: BrokerPlan) -> dict[str, str]:
    """Return the text of each file by its name."""
    return {"devices.conf": _devices(plan), "enrolment.conf": _enrolment(plan)}


def _devices(plan: BrokerPlan) -> str:
    settings = plan.settings
    client, leaf = settings.inner_ports
    fleet = plan.fleet
    users = [_user(f"CN={FLEET_USER}", fleet_rights(fleet), "")]
    subjects = {(each.device, serial_number(each.key_sha256)) for each in plan.valid}
    rights = device_rights(fleet)
    users += [_user(f"CN={device},SERIALNUMBER={number}", rights, device) for device, number in sorted(subjects)]
    listed = "\n    ".join(users)
    return f"""\
# The fleet {fleet}: devices. Written by `autoglm-edge fleet broker config`, anew for each device that comes or goes.
server_name: "autoglm-edge-{fleet}"
listen: "127.0.0.1:{client}"
max_payload: {LARGEST_MESSAGE_BYTES}
jetstream {{ store_dir: "{plan.file("jetstream")}", domain: "{_DOMAIN}" }}
leafnodes {{
  listen: "127.0.0.1:{leaf}"
  authorization {{ user: "enrolment", password: "{settings.secret}", account: "{_ACCOUNT}" }}
}}
mqtt {{
  listen: "{settings.bind}:{settings.port}"
  ack_wait: "5s"
  tls {{ {_certificate(plan)}, ca_file: "{plan.file(AUTHORITY_FILE)}", verify_and_map: true }}
}}
accounts {{ {_ACCOUNT} {{
  jetstream: enabled
  users: [
    {listed}
  ]
}} }}
"""


def _enrolment(plan: BrokerPlan) -> str:
    settings = plan.settings
    client, leaf = settings.inner_ports
    # Not by name: NATS has no word for the client id in the rights of a user.
    board = _user("enrolment", board_rights(plan.fleet), "+", password=settings.secret)
    return f"""\
# The fleet {plan.fleet}: boards that are to become devices. Written by `autoglm-edge fleet broker config`.
server_name: "autoglm-edge-{plan.fleet}-enrolment"
listen: "127.0.0.1:{client + 1}"
max_payload: {LARGEST_MESSAGE_BYTES}
leafnodes {{ remotes: [ {{ url: "nats://enrolment:{settings.secret}@127.0.0.1:{leaf}", account: "{_ACCOUNT}" }} ] }}
mqtt {{
  listen: "{settings.bind}:{settings.enrolment_port}"
  ack_wait: "5s"
  js_domain: "{_DOMAIN}"
  no_auth_user: "enrolment"
  tls {{ {_certificate(plan)} }}
}}
accounts {{ {_ACCOUNT} {{
  users: [
    {board}
  ]
}} }}
"""


def _certificate(plan: BrokerPlan) -> str:
    return f'cert_file: "{plan.file(CERTIFICATE_FILE)}", key_file: "{plan.file(KEY_FILE)}"'


def _user(user: str, rights: Rights, name: str, password: str | None = None) -> str:
    publish = [_subject(each.replace(SELF, name)) for each in rights.publish]
    subscribe = [*(_subject(each.replace(SELF, name)) for each in rights.subscribe), _DELIVERY]
    secret = f" password: {json.dumps(password)}," if password else ""
    return (
        f'{{ user: "{user}",{secret} allowed_connection_types: ["MQTT"], permissions: {{ '
        f"publish: {{ allow: {json.dumps(publish)} }}, subscribe: {{ allow: {json.dumps(subscribe)} }} }} }}"
    )


def _subject(topic_filter: str) -> str:
    """Return an MQTT filter as NATS writes it."""
    levels = ["*" if level == "+" else ">" if level == "#" else level for level in topic_filter.split("/")]
    return ".".join(levels)
