"""The guide's table of errors: every kind of error is in it, and every line in it is one that the code says."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

from tests.converter.graphs import DIGITS

import autoglm_edge_converter
from autoglm_edge_converter import Options, errors
from autoglm_edge_converter.pipeline import plan_conversion
from autoglm_edge_converter.targets import own_signed

ROOT = Path(autoglm_edge_converter.__file__).parent
GUIDE = Path(__file__).parents[2] / "docs" / "convert.md"
ROW = re.compile(r"^\| (\w+) \| `(.+?)` \| (.+?) \|$", re.MULTILINE)
BASES = {"ConversionError", "BadSamples"}


def rows() -> list[tuple[str, str]]:
    return [(kind, line) for kind, line, _ in ROW.findall(GUIDE.read_text(encoding="utf-8"))]


def said() -> list[str]:
    """Every text of the sources, with a marker where a value is put in."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_every_kind_of_error_is_in_the_table() -> None:
    kinds = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.ConversionError) and kind.__module__ == errors.__name__
    }
    assert kinds - BASES <= {kind for kind, _ in rows()}
    assert {kind for kind, _ in rows()} <= kinds


def test_every_line_of_the_table_is_said_by_the_code() -> None:
    texts = said()
    assert len(rows()) > 25
    for kind, line in rows():
        pieces = [piece.strip() for piece in line.split("…") if piece.strip()]
        pattern = re.compile(".*".join(map(re.escape, pieces)), re.DOTALL)
        assert any(pattern.search(text) for text in texts), f"{kind}: nothing says {line!r}"


def test_every_option_of_the_guide_is_one_of_the_command() -> None:
    from typer.main import get_command

    from autoglm_edge.app import build

    root = get_command(build())
    commands = [command for name, command in root.commands.items() if name in ("convert", "bench")]  # type: ignore[attr-defined]  # a group
    known = {option for command in commands for parameter in command.params for option in parameter.opts}
    asked = set(re.findall(r"--[a-z][a-z0-9-]+", GUIDE.read_text(encoding="utf-8")))
    assert asked - known == {"--help"}


def test_the_plan_of_the_guide_is_what_the_command_prints(tmp_path: Path) -> None:
    """`...` stands for what is left out. For a target, so that it is the same on all x86 machines."""
    guide = GUIDE.read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```\n(targets .+?)^```$", guide, re.MULTILINE | re.DOTALL)
    subprocess.run([sys.executable, DIGITS / "prepare.py", tmp_path / "samples.npz"], check=True)  # as the guide says
    plan = str(plan_conversion(DIGITS / "res.onnx", tmp_path / "samples.npz", Options(targets=("rpi5",))))
    pattern = re.escape(shown.strip()).replace(re.escape("..."), "[^\\n]*")
    if own_signed():  # one candidate less: other signs are only tried where they can be timed as they are
        pattern = pattern.replace("18", "17").replace("107", "106")
    assert re.fullmatch(pattern, plan), plan
