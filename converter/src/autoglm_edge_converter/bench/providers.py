"""Ways in which LiteRT runs a file on the CPU."""

from __future__ import annotations

XNNPACK = "XNNPACK"
"""Its kernels for the operators that they know, the built-in ones for the rest; what LiteRT does by itself."""

BUILT_IN = "built-in"
"""The built-in kernels alone, as on a runtime without XNNPACK."""
