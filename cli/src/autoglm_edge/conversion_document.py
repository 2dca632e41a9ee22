"""The result of a conversion as one JSON document, for scripts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoglm_edge_converter.results import Considered, ConversionResult
    from autoglm_edge_converter.search import Trial


def as_document(result: ConversionResult) -> dict[str, Any]:
    """Return the result for a script: what was written, what was tried, and what could not be had."""
    search = result.findings.search
    return {
        "name": result.manifest.name,
        "version": result.manifest.version,
        "directory": str(result.directory),
        "packed": str(result.packed),
        "report": str(result.directory / "report.html"),
        "complete": result.complete,
        "variants": [variant.model_dump(mode="json") for variant in result.manifest.variants],
        "refused": [{"precision": r.precision, "reason": r.reason} for r in result.findings.refusals],
        "passes": [{"name": p.name, "dropped": p.dropped} for p in result.findings.passes],
        "tried": [_trial(trial) for trial in search.trials] if search else [],
        "considered": [_considered(entry) for entry in result.findings.considered],
        "pruning": asdict(result.findings.pruning) if result.findings.pruning else None,
        "explanations": [asdict(entry) for entry in result.findings.explanations],
        "notes": list(result.findings.notes),
    }


def _considered(entry: Considered) -> dict[str, Any]:
    return {
        "candidate": str(entry.trial.candidate),
        "form": entry.form,
        "size_bytes": entry.size_bytes,
        "speedup": entry.speedup,
        "unknown_on": list(entry.unknown_on),
        "outcome": entry.outcome,
    }


def _trial(trial: Trial) -> dict[str, Any]:
    score = trial.score
    return {
        "recipe": str(trial.candidate.recipe),
        "float_nodes": list(trial.candidate.float_nodes),
        "size_bytes": trial.size_bytes,
        "metric": score.metric if score else None,
        "value": score.value if score else None,
        "sqnr_db": score.sqnr_db if score else None,
        "problem": trial.problem,
    }
