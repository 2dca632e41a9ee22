"""Every command that a document names exists and has the options that it is given there."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from autoglm_edge.app import build
from autoglm_edge_agent.cli import app as agent_app

ROOT = Path(__file__).parents[2]
PROGRAMS = {"autoglm-edge": get_command(build()), "autoglm-edge-agent": get_command(agent_app)}
COMMAND = re.compile(r"(?:sudo |\.venv/bin/|/usr/bin/)*(autoglm-edge(?:-agent)?) (.+)")
SHORT = re.compile(r"^(bench|bundle|convert|demo|fleet|flash|targets) (?=[a-z-])")
BLOCK = re.compile(r"^```.*?^```|^(?: {4}.*\n)+", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
UsageError = typer.BadParameter.__base__ or Exception  # of the parser that comes with Typer
ENDS = {"|", "||", "&&", ";", "&", ">", ">>", "<", "2>&1"}


def _documents() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.splitlines() if name != "CHANGELOG.md"]


def _words(line: str) -> list[str]:
    words = shlex.split(line.removesuffix("..."), comments=True)
    return words[: next((at for at, word in enumerate(words) if word in ENDS), len(words))]


def _blocks(text: str) -> list[tuple[str, str]]:
    """Commands that a reader would paste: of lines of their own, as program and what follows it."""
    lines = [line.strip() for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    return [(found[1], found[2]) for line in lines if (found := COMMAND.fullmatch(line.removeprefix("$ ")))]


def _mentions(text: str) -> list[tuple[str, str]]:
    """Commands within a sentence, which leave out what does not matter there, and often the program's name."""
    codes = [SHORT.sub(r"autoglm-edge \g<0>", code) for code in CODE.findall(BLOCK.sub("", text))]
    return [(found[1], found[2]) for code in codes if (found := COMMAND.fullmatch(code))]


def _check(program: str, words: list[str], *, whole: bool) -> None:
    command: Any = PROGRAMS[program]
    context = command.make_context(program, [], resilient_parsing=True)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name, *words = words
        assert name in command.commands, f"no command {name!r} in {context.command_path}"
        command = command.commands[name]
        context = command.make_context(name, [], parent=context, resilient_parsing=True)
    if not whole:  # what is left out may be the command's own name
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word.split("=")[0] for word in words if word.startswith("-")} <= known | {"--help"}
        return
    given, surplus, _ = command.make_parser(context).parse_args(words)
    assert not hasattr(command, "commands") or "--help" in words, "a group of commands does nothing by itself"
    assert surplus == []
    missing = [
        each.name
        for each in command.params
        if each.required and not isinstance(given.get(each.name), (str, tuple, list))
    ]
    assert missing == [] or "--help" in words


DOCUMENTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in _documents()}
NAMED = [
    pytest.param(program, words, whole, id=f"{name}: {words}")
    for name, text in DOCUMENTS.items()
    for whole, found in ((True, _blocks(text)), (False, _mentions(text)))
    for program, words in found
]


@pytest.mark.parametrize(("program", "words", "whole"), NAMED)
def test_a_command_of_a_document_exists(program: str, words: str, whole: bool) -> None:
    _check(program, _words(words), whole=whole)


def test_the_documents_name_many_commands() -> None:
    assert len(NAMED) > 100


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("autoglm-edge", "fleet nothing"),
        ("autoglm-edge", "fleet init --nothing f"),
        ("autoglm-edge", "bundle show"),
        ("autoglm-edge", "bundle show a b"),
        ("autoglm-edge-agent", "serve"),
        ("autoglm-edge-agent", "fleet"),
    ],
)
def test_a_wrong_command_is_noticed(program: str, words: str) -> None:
    with pytest.raises((AssertionError, UsageError)):
        _check(program, _words(words), whole=True)
