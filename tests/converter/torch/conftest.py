"""These tests need PyTorch: `make test-torch` runs them in .venv-torch; elsewhere they are not collected."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]


def pytest_report_header(config: pytest.Config) -> str:
    return f"PyTorch tests: {'collected' if find_spec('torch') else 'not in this environment, see make test-torch'}"
