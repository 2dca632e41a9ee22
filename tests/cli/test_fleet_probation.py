from __future__ import annotations

import pytest
import typer

from autoglm_edge.fleet_probation import read_terms
from autoglm_edge_protocol.probation import ProbationTerms, ShadowTerms


def test_terms_from_pairs() -> None:
    assert read_terms([]) is None
    assert read_terms(["duration_s=5", "inferences=0"]) == ProbationTerms(duration_s=5, inferences=0)
    assert read_terms(["shadow"]) == ProbationTerms(shadow=ShadowTerms())
    assert read_terms(["shadow.rate=0.5", "shadow", "max_crashes=2"]) == ProbationTerms(
        max_crashes=2, shadow=ShadowTerms(rate=0.5)
    )


@pytest.mark.parametrize(
    "pair",
    [
        "duration=5",
        "duration_s",
        "duration_s=soon",
        "shadow.rate=2",
        "shadow=1",
        "duration_s=999",
        "=",
        "max_crashes=nan",
    ],
)
def test_terms_that_make_no_sense(pair: str) -> None:
    with pytest.raises(typer.BadParameter, match="--probation"):
        read_terms([pair])
