"""How a variant is to be run: by which runtime, on what, with how many threads.

Imported by the agent's main process too, so it loads neither numpy nor a runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from autoglm_edge_protocol.documents import Part

Optimisation = Literal["none", "basic", "all"]
LONGEST_NAME = 64
ProviderName = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]


class SessionOptions(Part):
    """What a backend is told when it loads a model. One that has no such knob leaves it alone."""

    provider: str = Field(default="", max_length=LONGEST_NAME)
    """What calculates, by the backend's own names (`cpu`, `cuda`, `xnnpack`, `edgetpu`, ...); empty: its usual one."""
    provider_options: dict[str, str] = Field(default_factory=dict)
    threads: int = Field(default=1, ge=1, le=256)
    spinning: bool = False
    """Whether threads wait in a busy loop: that doubles the processor time of a board that has other work."""
    optimisation: Optimisation = "all"
    """How far the runtime may rewrite the graph."""
    strict: bool = False
    """Whether a model of which the provider does not take the whole is unusable."""
    custom_ops: tuple[Path, ...] = ()
    """Libraries of custom operators."""
    registerers: tuple[str, ...] = ()
    """For LiteRT: by library, in their order, the function in it that adds its operators."""
    cached_graph: Path | None = None
    """Where the graph as the runtime has rewritten it for this device is kept; None: nowhere. In a plan the folder of
    its bundle, for a backend the file without its ending."""


class Plan(Part):
    """One way to run a variant on this device: what a probe measures and a worker is started with."""

    runtime: str = ""
    """Empty: the first of the variant's that is installed."""
    options: SessionOptions = SessionOptions()

    def keeping(self, graphs: Path) -> Plan:
        """Return the plan with a folder for graphs that the runtime has rewritten."""
        return self.model_copy(update={"options": self.options.model_copy(update={"cached_graph": graphs})})

    def __str__(self) -> str:
        options = self.options
        words = [self.runtime, options.provider, f"{options.threads} thread{'s' * (options.threads > 1)}"]
        words += ["spinning"] * options.spinning + [f"optimisation {options.optimisation}"]
        return ", ".join(word for word in words if word)
