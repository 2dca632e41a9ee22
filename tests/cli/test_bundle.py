"""`bundle show` and `bundle verify` on a real bundle and on tampered ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.converter.graphs import linear, linear_samples

from autoglm_edge.bundle import variants_table
from autoglm_edge_converter import ConversionResult, Options, convert
from autoglm_edge_protocol.manifest import Variant


def command(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", "from autoglm_edge.app import main; main()", "bundle", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ConversionResult:
    folder = tmp_path_factory.mktemp("bundle")
    samples = linear_samples(folder / "s.npz")
    return convert(linear(folder / "m.onnx"), samples, folder / "out", Options(precisions=("fp32",)))


@pytest.mark.parametrize(("other", "head"), [("equal", "equal"), ("top1-agreement", "quality")])
def test_the_table_names_a_metric_only_where_all_have_the_same(made: ConversionResult, other: str, head: str) -> None:
    def judged_by(metric: str) -> Variant:
        first = made.manifest.variants[0]
        return first.model_copy(update={"quality": first.quality.model_copy(update={"metric": metric})})

    manifest = made.manifest.model_copy(update={"variants": (judged_by("equal"), judged_by(other))})
    assert [column.header for column in variants_table(manifest).columns][2] == head


def test_show_prints_a_table_or_the_manifest(made: ConversionResult) -> None:
    for path in (made.directory, made.packed):
        shown = command("show", path)
        assert shown.returncode == 0, shown.stderr
        assert "m@1.0.0" in shown.stdout
        assert "fp32" in shown.stdout
    assert json.loads(command("show", made.packed, "--json").stdout) == made.manifest.model_dump(mode="json")


def test_a_whole_bundle_is_verified(made: ConversionResult) -> None:
    for path in (made.directory, made.packed):
        done = command("verify", path)
        assert done.returncode == 0, done.stderr
        assert "is whole" in done.stdout


def test_what_a_manifest_says_is_no_markup(made: ConversionResult, tmp_path: Path) -> None:
    shutil.copytree(made.directory, tmp_path / "bundle")
    manifest = json.loads((tmp_path / "bundle/manifest.json").read_text())
    manifest["provenance"]["source"]["file"] = "m[/old].onnx"
    manifest["variants"][0]["notes"] = ["nodes [a] and [/b] stay in float"]
    (tmp_path / "bundle/manifest.json").write_text(json.dumps(manifest))
    shown = command("show", tmp_path / "bundle")
    assert shown.returncode == 0, shown.stderr
    assert "m[/old].onnx" in shown.stdout and "nodes [a] and [/b] stay in float" in shown.stdout


def flip_a_bit(directory: Path) -> None:
    path = directory / "variants/fp32/model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(directory: Path) -> None:
    path = directory / "golden/golden.npz"
    path.write_bytes(path.read_bytes()[:-1])


def take_away(directory: Path) -> None:
    (directory / "report.html").unlink()


def smuggle(directory: Path) -> None:
    (directory / "extra.so").write_bytes(b"\x7fELF")


def claim_a_newer_schema(directory: Path) -> None:
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (flip_a_bit, "variants/fp32/model.onnx: SHA-256 is"),
        (cut, "golden/golden.npz"),
        (take_away, "report.html is missing"),
        (smuggle, "extra.so is not listed"),
        (claim_a_newer_schema, "schema version 99"),
    ],
)
def test_a_tampered_bundle_is_told_in_one_line(
    tmp_path: Path, made: ConversionResult, tamper: Callable[[Path], None], says: str
) -> None:
    directory = tmp_path / "bundle"
    shutil.copytree(made.directory, directory)
    tamper(directory)
    done = command("verify", directory)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert says in done.stderr


def test_a_packed_file_cut_short_and_a_path_that_is_none(tmp_path: Path, made: ConversionResult) -> None:
    short = tmp_path / "short.bundle"
    short.write_bytes(made.packed.read_bytes()[:3000])
    for path in (short, tmp_path / "nowhere"):
        done = command("verify", path)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
