"""EMQX, 5.9 and later: two listeners and one access list.

Who a client is comes from its certificate alone, as the attribute `device`: a user name can be made up by whoever asks
on the listener without certificates. A rule with an attribute that a client has not got matches nothing. EMQX reads
lists of revoked certificates only from a web server, so devices that were revoked are denied by their names.
docs.emqx.com has the words: Client Attributes, ACL File, TLS. No EMQX was at hand to try this with.
"""

from __future__ import annotations

import json

from autoglm_edge_fleet.broker_access.plan import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, BrokerPlan
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

_ATTRIBUTE = "device"


def files(plan: BrokerPlan) -> dict[str, str]:
    """Return the text of each file by its name."""
    return {"emqx.conf": _configuration(plan), "acl.conf": _rules(plan)}


def _configuration(plan: BrokerPlan) -> str:
    settings = plan.settings
    certificate = f'certfile = "{plan.file(CERTIFICATE_FILE)}", keyfile = "{plan.file(KEY_FILE)}"'
    return f"""\
# The fleet {plan.fleet}. Written by `autoglm-edge fleet broker config`; include it from emqx.conf, and let no other
# listener be open to devices.
mqtt.max_packet_size = "{LARGEST_MESSAGE_BYTES}B"
mqtt.client_attrs_init = [{{ expression = "cn", set_as_attr = "{_ATTRIBUTE}" }}]

listeners.ssl.autoglm_devices {{
  bind = "{settings.bind}:{settings.port}"
  ssl_options {{
    {certificate}, cacertfile = "{plan.file(AUTHORITY_FILE)}"
    verify = verify_peer, fail_if_no_peer_cert = true
  }}
}}

listeners.ssl.autoglm_enrolment {{
  bind = "{settings.bind}:{settings.enrolment_port}"
  max_connections = {MOST_CONNECTED_BOARDS}
  ssl_options {{
    {certificate}
    verify = verify_none
  }}
}}

authorization {{
  no_match = deny
  deny_action = ignore
  sources = [{{ type = file, enable = true, path = "{plan.file("acl.conf")}" }}]
}}
"""


def _rules(plan: BrokerPlan) -> str:
    fleet = plan.fleet
    gone = [f'{{deny, {{client_attr, "{_ATTRIBUTE}", "{device}"}}, all, ["#"]}}.' for device in plan.outcast]
    owner = f'{{client_attr, "{_ATTRIBUTE}", "{FLEET_USER}"}}'
    # A client id is put into a filter as it is.
    gone.append('{deny, {clientid, {re, "[+#/]"}}, all, ["#"]}.')
    lines = [*gone, *_lines(owner, fleet_rights(fleet), "")]
    lines += _lines("all", device_rights(fleet), f"${{client_attrs.{_ATTRIBUTE}}}")
    lines += _lines("all", board_rights(fleet), "${clientid}")
    return "\n".join([f"%% The fleet {fleet}.", *lines, "{deny, all}."]) + "\n"


def _lines(who: str, rights: Rights, name: str) -> list[str]:
    lines = []
    for action, filters in (("publish", rights.publish), ("subscribe", rights.subscribe)):
        listed = ", ".join(json.dumps(each.replace(SELF, name)) for each in filters)
        lines.append(f"{{allow, {who}, {action}, [{listed}]}}.")
    return lines
