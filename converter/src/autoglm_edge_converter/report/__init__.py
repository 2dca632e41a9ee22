"""The report: one HTML page that explains a conversion to whoever has to trust it, and the same as JSON.

`findings` and `evidence` gather, `document` is what is told, `page` with `charts` and `picture` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence

from autoglm_edge_converter.report.evidence import Evidence, Pair, collect
from autoglm_edge_converter.report.findings import Report, document
from autoglm_edge_converter.report.page import page
from autoglm_edge_protocol.manifest import Variant

__all__ = ["Evidence", "HTML_PATH", "JSON_PATH", "Pair", "Report", "collect", "document", "page", "render"]

HTML_PATH, JSON_PATH = "report.html", "report.json"


def render(report: Report, variants: Sequence[Variant]) -> dict[str, bytes]:
    """Return the files of the report by their path in the bundle."""
    told = document(report, variants)
    return {HTML_PATH: page(told).encode(), JSON_PATH: told.to_json().encode()}
