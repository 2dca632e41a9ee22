from __future__ import annotations

from pathlib import Path

from autoglm_edge_agent.telemetry.temperature import temperature_c


def _zone(root: Path, number: int, kind: str, text: str) -> None:
    zone = root / f"thermal_zone{number}"
    zone.mkdir(parents=True)
    (zone / "type").write_text(f"{kind}\n")
    (zone / "temp").write_text(text)


def test_the_warmest_zone_counts_and_the_power_chip_does_not(tmp_path: Path) -> None:
    _zone(tmp_path, 0, "cpu-thermal", "48312\n")
    _zone(tmp_path, 1, "gpu-thermal", "51000\n")
    _zone(tmp_path, 2, "PMIC-Die", "100000\n")
    assert temperature_c(tmp_path) == 51.0


def test_a_zone_that_cannot_be_read_or_is_absurd_is_left_out(tmp_path: Path) -> None:
    _zone(tmp_path, 0, "cpu-thermal", "")
    _zone(tmp_path, 1, "soc", "-273000")
    _zone(tmp_path, 2, "tj", "999999")
    (tmp_path / "thermal_zone3").mkdir()
    _zone(tmp_path, 4, "cpu", "40000")
    assert temperature_c(tmp_path) == 40.0


def test_a_board_without_zones_still_gives_a_figure_or_none(tmp_path: Path) -> None:
    found = temperature_c(tmp_path / "nothing")
    assert found is None or 0 < found < 150
