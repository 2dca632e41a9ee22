"""The fleet side: repository, registry, deployments, telemetry."""
