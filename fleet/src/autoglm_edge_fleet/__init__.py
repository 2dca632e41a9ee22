"""The fleet side: repository, registry, deployments, commands, telemetry, and the daemon that serves them over MQTT.

`fleet.Fleet` is what an owner works with, `service.serve` the daemon, `local_broker.LocalBroker` a broker for trials.
"""
