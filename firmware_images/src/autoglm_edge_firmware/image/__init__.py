"""Make a card's image from Debian packages and the agent's: planned, reproducible, and never mounted."""

from autoglm_edge_firmware.image.build import build_image
from autoglm_edge_firmware.image.plan import ImagePlan

__all__ = ["ImagePlan", "build_image"]
