from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from autoglm_edge_fleet.config import SETTINGS_FILE, read_config, write_config
from autoglm_edge_fleet.errors import BadSettings

PAGE = Path(__file__).parents[2] / "docs" / "brokers.md"
(EXAMPLE,) = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_documented_settings_are_all_that_there_are(tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).write_text(EXAMPLE, encoding="utf-8")
    config = read_config(tmp_path)
    assert None not in asdict(config).values()
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config


def test_name_and_url_are_enough(tmp_path: Path) -> None:
    path = tmp_path / SETTINGS_FILE
    path.write_text('name = "home"\n[broker]\nurl = "mqtt://h"\n', encoding="utf-8")
    assert read_config(tmp_path).url_for_enrolment == "mqtt://h"
    path.write_text('name = "home"\n', encoding="utf-8")
    with pytest.raises(BadSettings):
        read_config(tmp_path)
