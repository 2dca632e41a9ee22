"""These tests need TensorFlow: `make test-tensorflow` runs them; elsewhere they are not collected."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

if find_spec("tensorflow"):
    from autoglm_edge_converter.roads.tensorflow_start import start_tensorflow

    start_tensorflow(threads=1)

collect_ignore_glob = [] if find_spec("tensorflow") else ["test_*.py"]


def pytest_report_header(config: pytest.Config) -> str:
    found = find_spec("tensorflow")
    return f"TensorFlow tests: {'collected' if found else 'not in this environment, see make test-tensorflow'}"
