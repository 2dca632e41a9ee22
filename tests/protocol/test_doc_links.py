"""Links between the documents lead to a file and to a heading that exist, and the index of decisions is complete."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
DECISIONS = ROOT / "docs" / "adr"
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SCHEME = re.compile(r"[a-z][a-z+.-]*:")


def _documents() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.splitlines()]


def _prose(document: Path) -> str:
    return FENCED.sub("", document.read_text())


def _anchors(document: Path) -> set[str]:
    """The anchors that GitHub derives from headings: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", _prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def _broken(document: Path) -> list[str]:
    broken = []
    for link in LINK.findall(_prose(document)):
        if SCHEME.match(link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in _anchors(target)):
            broken.append(f"{document.relative_to(ROOT)}: {link}")
    return broken


def test_every_relative_link_and_anchor_resolves() -> None:
    documents = _documents()
    assert ROOT / "README.md" in documents
    assert [link for document in documents for link in _broken(document)] == []


def test_the_index_of_decisions_names_each_with_its_title() -> None:
    titles = {path.name: path.read_text().splitlines()[0] for path in DECISIONS.glob("[0-9]*.md")}
    indexed = re.findall(r"^\| (\d+) \| \[(.+)\]\((.+)\) \|", (DECISIONS / "README.md").read_text(), re.MULTILINE)
    assert {name: f"# {number}. {title}" for number, title, name in indexed} == titles
