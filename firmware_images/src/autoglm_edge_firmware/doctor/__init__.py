"""Say what is on a card or in an image, without booting it."""

from autoglm_edge_firmware.doctor.examine import examine

__all__ = ["examine"]
