"""`--probation KEY=VALUE`: what a bundle must keep to, as a command line says it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer
from pydantic import ValidationError

from autoglm_edge_protocol.documents import first_problem
from autoglm_edge_protocol.probation import ProbationTerms, ShadowTerms

KEYS = (
    *(key for key in ProbationTerms.model_fields if key != "shadow"),
    *(f"shadow.{k}" for k in ShadowTerms.model_fields),
)


def read_terms(pairs: Iterable[str]) -> ProbationTerms | None:
    """Return the terms that KEY=VALUE pairs say, None for no pair. `shadow` alone takes the shadow's defaults.

    Raises typer.BadParameter.
    """
    values: dict[str, Any] = {}
    shadow: dict[str, str] | None = None
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if pair == "shadow":
            shadow = shadow or {}
        elif not separator or key not in KEYS:
            raise typer.BadParameter(f"--probation {pair!r}: give KEY=VALUE with one of {', '.join(KEYS)}, or shadow")
        elif key.startswith("shadow."):
            shadow = (shadow or {}) | {key.removeprefix("shadow."): value}
        else:
            values[key] = value
    if not values and shadow is None:
        return None
    try:
        return ProbationTerms.model_validate(values | {"shadow": shadow})
    except ValidationError as error:
        raise typer.BadParameter(f"--probation: {first_problem(error)}") from None
