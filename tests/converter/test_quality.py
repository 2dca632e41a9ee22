from __future__ import annotations

import numpy as np
import pytest

from autoglm_edge_converter.quality import EQUAL, FIDELITY, TOP1, metric_of, score

CLASSES = np.array([[0.1, 0.9, 0.0]], np.float32)


@pytest.mark.parametrize(
    ("array", "metric"),
    [
        (CLASSES, TOP1),
        (np.full((1, 5, 4), 0.25, np.float32), TOP1),
        (np.full((1, 3, 8, 8), 2.0, np.float32), FIDELITY),
        (np.ones((1, 1), np.float32), FIDELITY),
        (np.ones((1, 4), np.int64), EQUAL),
    ],
    ids=["classes", "sequence of distributions", "image", "one number", "integers"],
)
def test_each_output_has_the_metric_that_suits_it(array: np.ndarray, metric: str) -> None:
    assert metric_of([array]) == metric


def test_the_worst_output_is_the_figure() -> None:
    references = ((CLASSES, np.array([[1, 2]])), (CLASSES, np.array([[1, 2]])))
    answers = ((CLASSES, np.array([[1, 2]])), (CLASSES[:, ::-1].copy(), np.array([[1, 3]])))
    found = score(["top", "ids"], references, answers)
    assert [entry.value for entry in found.outputs] == [1.0, 0.75]
    assert (found.metric, found.value, found.drop) == (EQUAL, 0.75, 0.25)


def test_fidelity_of_one_percent_noise_power_is_twenty_db() -> None:
    signal = np.full((1, 3, 4, 4), 1.0, np.float32)
    found = score(["y"], ((signal,),), ((signal * np.float32(1.1),),))
    # 0.1 of the amplitude is 0.01 of the power; float32 rounding of 1.1 stays below 1e-6 of it.
    assert found.value == pytest.approx(0.99, abs=1e-6)
    assert found.sqnr_db == pytest.approx(20.0, abs=1e-4)


@pytest.mark.parametrize(
    "bad", [np.full((1, 3), np.nan, np.float32), np.ones((1, 4), np.float32)], ids=["nan", "shape"]
)
def test_nan_and_another_shape_are_worth_nothing(bad: np.ndarray) -> None:
    found = score(["y"], ((CLASSES,),), ((bad,),))
    assert not found.finite
    assert found.value == 0.0
