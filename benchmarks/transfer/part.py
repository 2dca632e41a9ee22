"""The part of RESULTS.md that all measurements of transfers write their sections into."""

from __future__ import annotations

PART = "Transfers"
INTRODUCTION = """
    .venv/bin/python -m benchmarks.transfer.delta
    .venv/bin/python -m benchmarks.transfer.run

What an update costs a device that has the release before it, and what it costs to move it over MQTT. Broker, fleet and
devices run on one machine, over its loopback interface, and share its two processors. What is compared ran in turns;
figures are medians. A device is the agent's own link, fetcher and store: what it fetches is written, verified chunk by
chunk and as a whole, and synced. Mosquitto is set as docs/brokers.md says. The machine had other work at the time of
the last run, before which these processes had precedence (`echo -15 > /proc/self/autogroup` in a session of their own).
"""
