"""The command `autoglm-edge`."""
