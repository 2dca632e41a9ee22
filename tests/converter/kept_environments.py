"""Isolated environments of tests: really made, once, below the repository, unless a variable names another folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autoglm_edge_converter.environments import FOLDER_VARIABLE

KEPT = Path(os.environ.get(FOLDER_VARIABLE) or Path(__file__).parents[2] / ".environments")


@pytest.fixture(autouse=True)
def kept_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(KEPT))
