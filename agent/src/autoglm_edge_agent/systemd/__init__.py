"""What the agent and the service manager say to each other: readiness, the watchdog, sockets, devices."""
