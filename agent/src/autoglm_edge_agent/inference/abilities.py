"""What an installed runtime can really do: asked in a process of its own, with the smallest model of its format.

`onnxruntime.get_available_providers()` and its like tell what was compiled in. Here each provider runs something.
"""

from __future__ import annotations

from autoglm_edge_agent.inference.isolated import Outcome, ask

TIMEOUT_S = 60.0
"""An accelerator that compiles its programs when it is first used takes its time."""
_TRIAL = "autoglm_edge_agent.inference.trial"


async def providers_of(runtime: str) -> Outcome:
    """Ask a runtime for its providers; the value is a list of names. Raises OSError."""
    return await ask(_TRIAL, {"runtime": runtime}, TIMEOUT_S)


async def try_provider(runtime: str, provider: str) -> Outcome:
    """Run the smallest model; the value is the number of nodes by provider. Raises OSError."""
    return await ask(_TRIAL, {"runtime": runtime, "provider": provider}, TIMEOUT_S)
