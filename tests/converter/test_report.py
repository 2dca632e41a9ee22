"""The report: a page that stands alone, whatever the names in it are, and the same as JSON."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from autoglm_edge_converter import ConversionResult
from autoglm_edge_converter.explain.explanation import BY_COUNT, FUSED, Explanation, Fate, Need
from autoglm_edge_converter.report import page
from autoglm_edge_converter.report.charts import Bar, bars, pareto, ticks
from autoglm_edge_converter.report.document import (
    DROPPED,
    REFERENCE,
    SHIPPED,
    Answer,
    Disagreement,
    Disagreements,
    Entry,
    Layer,
    Layers,
    LayerSize,
    Limit,
    Noise,
    Pass,
    PrunedGroup,
    PruningReport,
    ReportDocument,
    WorstLayer,
    with_front,
)
from autoglm_edge_converter.report.layers import constants, histogram, stored_bytes, weighted
from autoglm_edge_converter.report.picture import LONGEST_PX, as_image, picture, png

HOSTILE = '"><script>alert(1)</script><img src=http://evil.example/x onerror="x">&amp;\'<!-- \u202e'
VOID = {"meta", "br", "img", "line", "circle", "rect", "polyline"}


class Checker(HTMLParser):
    """Notes unbalanced tags, elements and everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.problems: list[str] = []
        self.elements: set[str] = set()
        self.fetched: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        for name, value in attrs:
            if name.startswith("on"):
                self.problems.append(f"handler {name}")
            if name in ("src", "href", "xlink:href", "action", "data", "poster"):
                self.fetched.append(value or "")
            if name == "style" and "url" in (value or ""):
                self.fetched.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> out of place")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def check(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.problems == []
    assert checker.open == []
    assert not checker.elements & {"script", "iframe", "object", "embed", "link", "form"}
    assert all(address.startswith("data:image/png;base64,") for address in checker.fetched)
    assert not re.search(r"@import|url\(", text)
    return checker


def entry(name: str, state: str, value: float, cpu_us: float, size_bytes: int) -> Entry:
    return Entry(
        id=name,
        label=name,
        state=state,
        reason=f"because {name}",
        precision="int8",
        metric="accuracy",
        value=value,
        drop=1 - value,
        samples=40,
        sqnr_db=31.0,
        size_bytes=size_bytes,
        median_us=cpu_us,
        cpu_us=cpu_us,
        speedup=2.0,
    )


def told(name: str = "net") -> ReportDocument:
    image = picture(np.zeros((1, 1, 16, 16), np.float32))
    answers = (Answer(name, 0.5), Answer("two", 0.25))
    entries = with_front(
        (
            entry(f"{name} original", REFERENCE, 1.0, 2000, 4000),
            entry(f"{name} int8", SHIPPED, 0.99, 900, 1000),
            entry(f"{name} far", DROPPED, 0.07, 800, 1000),
        )
    )
    some = histogram(name, [np.linspace(0, 1, 99)], [np.round(np.linspace(0, 1, 99), 1)])
    assert some is not None
    return ReportDocument(
        name=name,
        version="1.0.0",
        source={"file": f"{name}.onnx", "size_bytes": 4000, "sha256": "0" * 64},
        machine=name,
        max_drop=0.01,
        samples={"calibration": 1, "search": 1, "evaluation": 1},
        entries=entries,
        tried=(replace(entries[1], float_nodes=(name, "b")), replace(entries[2], value=None, size_bytes=None)),
        refusals=((name, name),),
        notes=(name,),
        passes=(Pass(name, None), Pass("b", name)),
        layers=(
            Layers(
                "onnx",
                Noise(name, (Layer(name, "Conv", 20.0), Layer("p", "Conv", None, name), Layer("n", "Conv", None))),
                (LayerSize(name, "Conv", 4000, 1000), LayerSize("kept", "Conv", 40, None)),
                WorstLayer(name, name, (some,)),
            ),
        ),
        disagreements=(Disagreements(name, 3, 9, (Disagreement(4, name, answers, answers, image, name),)),),
        limits=(Limit(name, name, name),),
        plan=name,
        commands=(f"autoglm-edge convert {name}",),
        versions={name: name},
        explanations=(
            Explanation(
                variant=name,
                source=name,
                how=BY_COUNT,
                fates=(Fate(name, name, FUSED, name, name),),
                before=((name, 1),),
                after=((name, 1),),
                needs=(Need(name, 1, 1, ((name, None),)),),
                file_needs=name,
                road=name,
            ),
        ),
        pruning=PruningReport(0.2, 0.4, None, (PrunedGroup((name, "b"), 16, 8, None), PrunedGroup(("c",), 9, 9, name))),
    )


def test_every_section_is_there() -> None:
    text = "".join(check(page(told())).text)
    for heading in (
        "What was measured",
        "Quality and time",
        "What was tried",
        "Pruned channels",
        "Sensitivity of the layers",
        "The worst layer",
        "Size by layer",
        "Where the variants and the original disagree",
        "What became of each operator",
        "What a device checks",
        "How it was made",
    ):
        assert heading in text


def test_formats_have_marks_of_their_own_and_a_legend() -> None:
    drawn = pareto(told().entries, 0.01)
    assert "<rect" not in drawn
    both = tuple(replace(one, format="tflite" if number else "onnx") for number, one in enumerate(told().entries))
    drawn = page(replace(told(), entries=both))
    assert drawn.count('<rect class="dot of-tflite') == len(both) - 1
    assert 'class="key of-onnx"' in drawn
    assert 'class="key of-tflite"' in drawn


def test_hostile_names_stay_text() -> None:
    checker = check(page(told(HOSTILE)))
    assert HOSTILE in "".join(checker.text)


@given(st.text(max_size=40))
def test_any_name_is_shown_as_it_is(name: str) -> None:
    name = name.replace("\r", "").replace("\0", "")  # which no HTML can hold
    assert name in "".join(check(page(told(name))).text)


def test_absent_findings_leave_sections_out() -> None:
    bare = replace(
        told(),
        tried=(),
        layers=(),
        disagreements=(),
        limits=(),
        entries=(replace(told().entries[0], cpu_us=None, value=None, speedup=None, size_bytes=None, sqnr_db=None),),
    )
    text = "".join(check(page(bare)).text)
    assert "Quality and time" not in text
    assert "worst layer" not in text


def test_the_json_is_the_document_and_holds_no_nan() -> None:
    odd = replace(told(), entries=(replace(told().entries[0], speedup=float("nan"), sqnr_db=float("inf")),))
    found = json.loads(odd.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert found["entries"][0]["speedup"] is None
    assert found["name"] == "net"
    assert found["layers"][0]["worst"]["histograms"][0]["levels"] == 11


def test_the_front_is_what_no_other_beats() -> None:
    entries = (
        entry("best", SHIPPED, 1.0, 2000, 4000),
        entry("fast", SHIPPED, 0.9, 500, 1000),
        entry("beaten", DROPPED, 0.9, 600, 1000),
        entry("small", DROPPED, 0.8, 900, 10),
        replace(entry("unknown", DROPPED, 1.0, 1, 1), cpu_us=None),
    )
    assert [item.id for item in with_front(entries) if item.front] == ["best", "fast", "small"]


entries_given = st.lists(
    st.builds(
        entry,
        st.sampled_from("abc"),
        st.sampled_from([SHIPPED, DROPPED, REFERENCE]),
        st.floats(0, 1),
        st.floats(0, 1e7),
        st.integers(0, 10**9),
    ),
    max_size=8,
)


@given(entries_given, st.floats(0, 0.9))
def test_the_plot_stays_within_its_frame(entries: list[Entry], max_drop: float) -> None:
    drawn = pareto(with_front(entries), max_drop)
    check(drawn)
    assert "nan" not in drawn
    for x, y in re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', drawn):
        assert 0 <= float(x) <= 640
        assert 0 <= float(y) <= 360


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 9))
def test_ticks_are_round_and_within(low: float, span: float, count: int) -> None:
    found = ticks(low, low + span, count)
    # Rounding to the step's digits may leave the range by a part in a billion.
    assert all(low - span * 1e-6 - 1e-6 <= tick <= low + span * (1 + 1e-6) + 1e-6 for tick in found)
    assert len(found) <= 2 * count + 2


def test_bars_fit_and_are_escaped() -> None:
    drawn = bars([Bar(HOSTILE, 5.0, HOSTILE), Bar("none", 0.0, "0")], limit=2.5)
    check(drawn)
    assert "width:100.00%" in drawn
    assert "left:50.00%" in drawn


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((1, 1, 32, 24), (32, 24, 1)),
        ((1, 3, 48, 320), (16, 107, 3)),
        ((1, 224, 224, 3), (112, 112, 3)),
        ((1, 10), None),
        ((1, 5, 32, 32), None),
        ((1, 3, 4, 4), None),
        ((2, 1, 128), None),
    ],
)
def test_what_is_an_image_becomes_one(shape: tuple[int, ...], size: tuple[int, ...] | None) -> None:
    image = as_image(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    assert (None if image is None else image.shape) == size
    assert image is None or max(image.shape) <= LONGEST_PX


def test_a_picture_is_a_png_with_these_pixels() -> None:
    image = np.arange(16 * 9 * 3, dtype=np.uint8).reshape(16, 9, 3)
    data = png(image)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, body = 8, b""
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(kind + content)
        body += content if kind == b"IDAT" else b""
        if kind == b"IHDR":
            assert struct.unpack(">IIBBBBB", content) == (9, 16, 8, 2, 0, 0, 0)
        at += 12 + length
    rows = np.frombuffer(zlib.decompress(body), np.uint8).reshape(16, 1 + 27)
    assert (rows[:, 0] == 0).all()
    assert (rows[:, 1:].reshape(image.shape) == image).all()
    address = picture(image[None])
    assert address is not None
    assert base64.b64decode(address.partition(",")[2]).startswith(b"\x89PNG")


def test_nan_in_an_image_is_drawn_as_something() -> None:
    image = as_image(np.full((1, 1, 9, 9), np.nan, np.float32))
    assert image is not None
    assert image.dtype == np.uint8


def _quantized() -> onnx.GraphProto:
    """MatMul of a weight stored on 8 bits per column, then ReLU, then to 8 bits and back."""
    weight = np.array([[1, -2], [3, 4]], np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["p"], "product"),
        helper.make_node("Relu", ["p"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    stored = [
        numpy_helper.from_array(weight, "wq"),
        numpy_helper.from_array(np.array([0.5, 2.0], np.float32), "ws"),
        numpy_helper.from_array(np.zeros(2, np.int8), "wz"),
        numpy_helper.from_array(np.array(0.1, np.float32), "s"),
        numpy_helper.from_array(np.array(0, np.uint8), "z"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (None, 2)) for name in "xy"]
    return helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)


def test_layers_are_read_through_8_bits() -> None:
    graph = _quantized()
    (node,) = weighted(graph).values()
    assert (node.weight, node.output) == ("w", "y")
    assert (constants(graph)["w"] == np.array([[0.5, -4.0], [1.5, 8.0]], np.float32)).all()
    before = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        "g",
        [],
        [],
        [numpy_helper.from_array(np.zeros((2, 2), np.float32), "w")],
    )
    # 4 bytes of weights, 8 of scales, 2 of zero points.
    assert stored_bytes(before) == {"product": 16}
    assert stored_bytes(graph) == {"product": 14}


def test_histograms_of_nothing_are_none() -> None:
    assert histogram("none", [], []) is None
    assert histogram("same", [np.ones(9)], [np.ones(9)]) is None
    assert histogram("nan", [np.array([np.nan, 1])], [np.ones(9)]) is None


def test_a_real_report_tells_why_and_what(converted: ConversionResult) -> None:
    text = (converted.directory / "report.html").read_text(encoding="utf-8")
    check(text)
    found = json.loads((converted.directory / "report.json").read_text(encoding="utf-8"))
    everything = [*found["entries"], *found["tried"]]
    assert all(item["reason"] for item in everything)
    assert {item["state"] for item in found["entries"]} >= {"shipped", "reference"}
    assert any(item["front"] for item in everything)
    (layers,) = found["layers"]
    assert layers["noise"]["layers"]
    assert all(layer["sqnr_db"] is None or layer["sqnr_db"] > 0 for layer in layers["noise"]["layers"])
    assert {entry["title"] for entry in layers["worst"]["histograms"]} == {"weights", "activations"}
    assert layers["sizes"][0]["after_bytes"] < layers["sizes"][0]["before_bytes"] / 3
    assert [entry["of"] for entry in found["disagreements"]]
    assert found["commands"][0].startswith("autoglm-edge convert res.onnx")
    assert found["source"]["sha256"] == converted.manifest.provenance.source.sha256
