"""What a bundle is called when the user does not say."""

from __future__ import annotations

import re

from pydantic import ValidationError

from autoglm_edge_converter.errors import BadOption
from autoglm_edge_protocol.names import BundleId


def bundle_id(name: str | None, version: str, stem: str) -> BundleId:
    """Return the bundle's name and version; the name comes from the model file's stem when absent. Raises BadOption."""
    wanted = name if name is not None else name_from(stem)
    try:
        return BundleId(name=wanted, version=version)
    except ValidationError:
        raise BadOption(
            f"{wanted!r} {version!r}: a name has a-z 0-9 _ - (at most 64), a version 0-9 A-Z a-z . + -"
        ) from None


def name_from(stem: str) -> str:
    """Return a valid bundle name made from any text."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_")[:64]
    return plain or "model"
