"""Put the agent, its claim and the way into a network into an image that the user already trusts."""

from autoglm_edge_firmware.customise.perform import customise

__all__ = ["customise"]
