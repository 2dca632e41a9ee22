"""The parsers that trust rests on: of metadata, memory, what two processes say to each other, settings and keys.

Each is given bytes where an attacker, a damaged disk or a process gone wrong could put them, and the rest is whole.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.fakes.signing import FakeRepository

from autoglm_edge_agent.inference.control import Beat, FromWorker, to_line
from autoglm_edge_agent.trust.intake import Intake
from autoglm_edge_agent.trust.memory import Memory
from autoglm_edge_agent.trust.offline import Offline, OfflineRequest, OfflineResult
from autoglm_edge_agent.trust.repository import Repository
from autoglm_edge_agent.trust.unguarded import Closed
from autoglm_edge_agent.trust.vault import Vault
from autoglm_edge_agent.trust.wire import (
    LENGTH,
    Ask,
    FromVerifier,
    Question,
    Verdict,
    parse_frame,
    read_frame,
    write_frame,
)
from autoglm_edge_agent.updates.observation import Observation
from autoglm_edge_fleet.config import FleetConfig, read_config
from autoglm_edge_fleet.key_files import file_signer
from autoglm_edge_fleet.keys import KeyRing
from autoglm_edge_fleet.passphrases import Passphrases
from autoglm_edge_fleet.pkcs8 import to_pem
from autoglm_edge_fleet.trust.custody import read_root
from autoglm_edge_protocol.deployment import BundleReference, DesiredState, Installed, Reason
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.documents import Document, parse
from autoglm_edge_protocol.durable import Disk

BUNDLE = BundleReference(name="linear", version="1", manifest_sha256=sha256_of(b""), manifest_size_bytes=400)
PASSPHRASE = "of the fuzzed keys"


@cache
def repository() -> FakeRepository:
    """A repository with one bundle and two roots."""
    made = FakeRepository("fuzz")
    made.rotate()
    made.add(BUNDLE)
    return made


def metadata(name: str) -> Callable[[bytes], object]:
    """A device that is given these bytes in place of one file, and all others as they are. Raises Distrust."""

    def run(data: bytes) -> object:
        honest = repository()
        files = {**honest.files, name: data}
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "root.json").write_bytes(files["1.root.json"])
            device = Repository(Path(folder), lambda asked, _max_bytes: files.get(asked))
            device.refresh(honest.now)
            device.check_bundle(BUNDLE)
            device.check_fresh(honest.now)
        return device

    return run


def kept_metadata(name: str) -> Callable[[Path], object]:
    """What lies on the disk in place of a file that was verified once."""

    def run(path: Path) -> object:
        honest = repository()
        (path.parent / "root.json").write_bytes(honest.first_root)
        path.replace(path.parent / name)
        device = Repository(path.parent, lambda asked, _max_bytes: honest.files.get(asked))
        device.refresh(honest.now)
        return device.timestamp()

    return run


def vault(path: Path) -> Vault:
    """What is remembered, and the version of the metadata that is kept."""
    opened = Vault(path.parent, Disk())
    kept = path.parent / "metadata" / "timestamp.json"
    kept.write_bytes(path.read_bytes())
    assert opened.version("timestamp") >= 0 or opened.sealed is None
    return opened


def offline(path: Path) -> object:
    """A request for an update from a folder: whatever it says, it is served or thrown away."""

    async def look() -> None:
        async def act(_desired: DesiredState) -> None:
            raise AssertionError("nothing is let in here")

        intake = Intake(Closed(), act, lambda: 0)
        await Offline(path.parent, Disk(), "porch", intake, lambda: None)._look()

    asyncio.run(look())
    assert not path.exists()
    return None


def frames(model: type[Document]) -> Callable[[bytes], object]:
    """One frame after the other, until the pipe ends. Raises EOFError."""

    def run(data: bytes) -> object:
        pipe = io.BytesIO(data)
        while pipe.tell() < len(data):
            parse_frame(model, read_frame(pipe))
        return pipe

    return run


def framed(*documents: Document) -> bytes:
    pipe = io.BytesIO()
    for document in documents:
        write_frame(pipe, document.to_bytes())
    return pipe.getvalue()


def beat(line: bytes) -> object:
    """A line of a worker, and all that is counted of it. Raises ValueError."""
    message = FromWorker.model_validate_json(line)
    observation, installed = Observation(), Installed(bundle=BUNDLE, variant="fp32")
    observation.watch(installed)
    if message.beat is not None:
        observation.beat(installed, message.beat, 0.0)
        observation.shadow_beat(message.beat)
    observation.baseline(installed, None)
    return observation.take(installed).report(), observation.readings()


def question() -> Question:
    signed = repository().sign(DesiredState(fleet="home", device="porch", generation=1, bundle=BUNDLE))
    return Question(
        message="desired", envelope=signed, fleet="home", device="porch", now=repository().now, memory=Memory()
    )


VERIFIER_WORDS = framed(
    FromVerifier(ask=Ask(name="2.root.json", max_bytes=100)),
    FromVerifier(verdict=Verdict(refusal=Reason(code="replayed", message="generation 1 is over"))),
)
ENDLESS_FRAME = LENGTH.pack(2**32 - 1)
BEATS = (
    to_line(FromWorker(event="beat", beat=Beat(requests=5, errors=1, rss_bytes=10**8, compared=3, differed=0.5))),
    to_line(FromWorker(event="failed", reason=Reason(code="golden-disagreement", message="y: 7 % agree"))),
)
REQUESTS = tuple(
    OfflineRequest(request_id="r1", folder=folder).to_bytes() for folder in ("/media/stick", "/media/\0", "relative")
)
RESULT = OfflineResult(request_id="r1", phase="confirmed", bundle="linear@1").to_bytes()


def result(data: bytes) -> OfflineResult:
    return parse(OfflineResult, data)


def fleet_settings() -> bytes:
    config = FleetConfig("home", profile=None, ca_file="ca.pem", max_packet_bytes=131072)
    return config.to_toml().encode()


def settings(path: Path) -> FleetConfig:
    return read_config(path.parent)


def listed_keys(path: Path) -> dict[str, str]:
    ring = KeyRing(path.parent, Passphrases())
    return {keyid: ring.describe(keyid) for keyid in ring.places()}


def key_file(path: Path) -> bytes:
    """A signature by whatever key is there. Raises KeyUnavailable, WrongPassphrase."""
    return bytes.fromhex(file_signer(path, None, Passphrases(PASSPHRASE)).sign(b"signed").signature)


def key_files() -> tuple[bytes, ...]:
    ed25519, ec = Ed25519PrivateKey.generate(), generate_ec(SECP256R1())
    return to_pem(ed25519, None), to_pem(ec, None), to_pem(ed25519, PASSPHRASE)


def pending_root(path: Path) -> object:
    return read_root(path).signed
