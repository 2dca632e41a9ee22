"""Which framework a model is of, told by its name and its first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from tests.converter.graphs import DIGITS

from autoglm_edge_converter.errors import BadOption, NotAModel
from autoglm_edge_converter.loading import Loading, formats_of, framework_of, load_original, stem_of
from autoglm_edge_converter.progress import Silent


@pytest.mark.parametrize(
    ("name", "framework"),
    [
        ("net.onnx", "onnx"),
        ("NET.ONNX", "onnx"),
        ("net.tflite", "tflite"),
        ("net.keras", "keras"),
        ("old.h5", "keras"),
        ("net.pt2", "pytorch"),
        ("models/net.py:make_net", "pytorch"),
    ],
)
def test_names_tell_the_framework(name: str, framework: str) -> None:
    assert framework_of(name) == framework


def test_a_name_that_does_not_tell_is_looked_into(tmp_path: Path) -> None:
    heads = {"tflite": b"\x1c\0\0\0TFL3", "keras": b"\x89HDF\r\n\x1a\n....", "onnx": b"anything else"}
    for framework, head in heads.items():
        path = tmp_path / f"model-{framework}"
        path.write_bytes(head)
        assert framework_of(str(path)) == framework
    archive = tmp_path / "archive"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("config.json", "{}")
    assert framework_of(str(archive)) == "keras"
    saved = tmp_path / "saved"
    saved.mkdir()
    with pytest.raises(NotAModel, match=r"without saved_model\.pb"):
        framework_of(str(saved))
    (saved / "saved_model.pb").touch()
    assert framework_of(str(saved)) == "savedmodel"


def test_weights_without_code_are_refused_with_what_to_give_instead() -> None:
    with pytest.raises(NotAModel, match=r"module\.py:function with --state-dict rnet\.pt"):
        framework_of("weights/rnet.pt")


def test_formats_follow_the_framework_unless_they_are_named() -> None:
    assert formats_of("onnx", ()) == ("onnx",)
    assert formats_of("tflite", ()) == ("tflite",)
    assert formats_of("keras", ()) == ("onnx", "tflite")
    assert formats_of("onnx", ("tflite", "onnx")) == ("onnx", "tflite")
    with pytest.raises(BadOption, match="choose onnx or tflite"):
        formats_of("onnx", ("coreml",))
    with pytest.raises(BadOption, match="no faithful road"):
        formats_of("tflite", ("onnx",))


def test_bundles_are_named_after_the_file_or_the_function() -> None:
    assert stem_of("a/b/net.onnx") == "net"
    assert stem_of("a/b/nets.py:rnet") == "rnet"


@pytest.mark.parametrize("name", ["absent.keras", "absent.onnx", "absent.tflite", "absent_savedmodel", "absent.py:net"])
def test_a_missing_model_is_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name.partition(":")[0]
    with pytest.raises(NotAModel, match=f"{path} does not exist: give a model file, a SavedModel's folder, or module"):
        load_original(str(tmp_path / name), Loading(), tmp_path, Silent())


def test_an_onnx_file_is_its_own_rendition(tmp_path: Path) -> None:
    found = load_original(str(DIGITS / "mbn.onnx"), Loading(), tmp_path, Silent())
    assert found.framework == "onnx"
    assert [(r.format, r.road) for r in found.renditions] == [("onnx", "as it came")]
    assert found.rendition("tflite") is None
    assert [port.name for port in found.proto.graph.input] == [port.name for port in found.inputs]
