"""Write the parts of the documentation that follow from the code; with `--check`, only say what is stale.

Each generated file is a row of `generated()`: its path and the function that returns its text.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from autoglm_edge_agent.updates.states import diagram
from autoglm_edge_protocol.chunks import ChunkIndex
from autoglm_edge_protocol.claims import Claim
from autoglm_edge_protocol.commands import Answer, Command
from autoglm_edge_protocol.deployment import DesiredState, Presence, ReportedState
from autoglm_edge_protocol.documents import Document
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.enrolment import (
    CertificateAnswer,
    CertificateRequest,
    EnrolmentAnswer,
    EnrolmentRequest,
    RenewalAnswer,
    RenewalRequest,
)
from autoglm_edge_protocol.manifest import Manifest
from autoglm_edge_protocol.signed import SignedMessage
from autoglm_edge_protocol.telemetry import TelemetryBatch
from autoglm_edge_protocol.transfer import FetchRefusal, FetchRequest, StreamCredit

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

DOCUMENTS: tuple[type[Document], ...] = (
    Manifest,
    ChunkIndex,
    SignedMessage,
    DesiredState,
    ReportedState,
    Presence,
    Command,
    Answer,
    TelemetryBatch,
    FetchRequest,
    FetchRefusal,
    StreamCredit,
    Claim,
    EnrolmentRequest,
    CertificateRequest,
    EnrolmentAnswer,
    CertificateAnswer,
    RenewalRequest,
    RenewalAnswer,
)


def generated() -> list[tuple[str, Callable[[], str]]]:
    """Return every generated file: its path below `docs/` and the function that returns its text."""
    return [
        *((f"schemas/{_file_name(model)}", functools.partial(json_schema, model)) for model in DOCUMENTS),
        ("asyncapi.json", asyncapi),
        ("update-states.md", update_states),
    ]


def _file_name(model: type[Document]) -> str:
    return f"{model.kind.replace(' ', '-')}.json"


def json_schema(model: type[Document]) -> str:
    """Return the JSON Schema (draft 2020-12) of a document."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def asyncapi() -> str:
    """Return the AsyncAPI document of the wire."""
    from scripts.asyncapi_document import document

    return document(DOCUMENTS, DOCS / "protocol.md")


def update_states() -> str:
    """Return the page with the diagram of an update's states."""
    return (
        "# The states of an update\n\n"
        "Generated from the transition table in `agent/src/autoglm_edge_agent/updates/states.py` by `make schemas`; "
        "[updates.md](updates.md) tells what happens in each.\n\n"
        f"```mermaid\n{diagram()}```\n"
    )


def stale(docs: Path) -> list[str]:
    """Return the generated paths below `docs` that are missing, differ, or are left over from an earlier run."""
    wanted = generated()
    differing = [path for path, text in wanted if not _holds(docs / path, text())]
    known = {path for path, _ in wanted}
    folders = {Path(path).parent for path in known if "/" in path}
    present = {f"{folder.as_posix()}/{file.name}" for folder in folders for file in (docs / folder).glob("*")}
    return sorted([*differing, *(present - known)])


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def write(docs: Path) -> list[str]:
    """Bring `docs` up to date and return the paths that changed."""
    disk = Disk()
    texts = dict(generated())
    changed = stale(docs)
    for path in changed:
        if path not in texts:
            disk.unlink(docs / path)
            continue
        disk.make_directories((docs / path).parent)
        disk.commit(docs / path, texts[path]().encode())
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; 1 when `--check` finds something stale."""
    parser = argparse.ArgumentParser(description="Write the generated parts of docs/.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 when something is stale")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder to bring up to date (default: docs/)")
    options = parser.parse_args(arguments)
    paths = stale(options.docs) if options.check else write(options.docs)
    for path in paths:
        print(f"stale: {path}" if options.check else f"wrote {path}")
    if options.check and paths:
        print("run `python scripts/generate_docs.py` and commit what it writes", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # where `scripts` is a package, as it is for the tests
    sys.exit(main())
