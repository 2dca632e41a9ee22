"""Probation: what a model must keep to after its activation, before the device confirms it."""

from __future__ import annotations

from pydantic import Field, model_validator

from autoglm_edge_protocol.documents import Count, Part

LONGEST_S = 30 * 24 * 3600.0
"""Of a probation: what is not decided after a month will not be."""


class ShadowTerms(Part):
    """The previous model runs beside the new one on a sample of the live inputs, and their answers are compared."""

    rate: float = Field(default=0.1, gt=0, le=1)
    """Share of the live inputs that the previous model also gets. A board that is busy compares fewer."""
    max_disagreement: float = Field(default=0.05, ge=0, le=1)
    """Share of the compared answers that may differ. Class scores differ in their largest entry."""
    min_samples: int = Field(default=50, ge=1, le=1_000_000)
    """So many are compared before the share decides anything; when they do not come in time, it decides nothing."""
    min_sqnr_db: float = Field(default=20.0, allow_inf_nan=False)
    """Answers that are no class scores differ when the new one is further than this from the previous one, in dB."""


class ProbationTerms(Part):
    """When a new model is confirmed, and when the device goes back to the previous one.

    It is confirmed after `duration_s` and `inferences`, or after `patience_s` with fewer inferences: a model that
    nobody asks must not be on probation for ever.
    """

    duration_s: float = Field(default=30.0, ge=0, le=LONGEST_S)
    inferences: int = Field(default=10, ge=0, le=1_000_000_000)
    patience_s: float = Field(default=120.0, ge=0, le=LONGEST_S)
    max_error_rate: float = Field(default=0.05, ge=0, le=1)
    """Share of requests that may be answered with an error, above the share that the previous model had."""
    max_latency_ratio: float = Field(default=2.0, ge=1, le=1000)
    """Median processor time of a run over the previous model's on this device and what the manifests lead to expect."""
    max_memory_ratio: float = Field(default=2.0, ge=1, le=1000)
    """Memory of the worker, divided by what the manifest says that the variant needs."""
    max_temperature_c: float = Field(default=85.0, ge=0, le=150)
    """Of the board. One that was that hot already is not held against the model."""
    max_crashes: int = Field(default=1, ge=0, le=1000)
    """So many crashes of a worker are borne."""
    shadow: ShadowTerms | None = None
    """None: the previous model does not run beside the new one."""

    @model_validator(mode="after")
    def _patient(self) -> ProbationTerms:
        if self.patience_s < self.duration_s:
            raise ValueError("patience_s is shorter than duration_s")
        return self


class ProbationReport(Part):
    """How far a probation is."""

    elapsed_s: float = Field(default=0.0, ge=0)
    requests: Count = 0
    errors: Count = 0
    crashes: Count = 0
    compared: Count = 0
    """Answers that were compared with the previous model's."""
    differed: float = Field(default=0.0, ge=0)
    """How many of them differ; of one request with several rows, the share of its rows counts."""
