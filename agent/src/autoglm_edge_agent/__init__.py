"""The device side: pulls bundles over MQTT, serves inference, reports telemetry."""
