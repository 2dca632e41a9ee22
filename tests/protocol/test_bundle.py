from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.protocol.example_documents import MANIFEST, MODEL_PATH

from autoglm_edge_protocol.bundle import (
    list_files,
    opened,
    pack,
    read_chunk_index,
    read_manifest,
    unpack,
    verify,
)
from autoglm_edge_protocol.chunk_index import write_chunk_index
from autoglm_edge_protocol.errors import DigestMismatch, MalformedBundle, MalformedDocument, UnsupportedSchema
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import Manifest

Tamper = Callable[[Path], object]
REFUSED = (MalformedBundle, MalformedDocument, DigestMismatch)


def _write(directory: Path, contents: dict[str, bytes]) -> Path:
    for path, data in contents.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
    files = list_files(directory, contents)
    files = tuple(sorted([*files, write_chunk_index(directory, files)], key=lambda entry: entry.path))
    manifest = Manifest.model_validate({**MANIFEST.model_dump(), "files": [entry.model_dump() for entry in files]})
    (directory / "manifest.json").write_text(manifest.to_text())
    return directory


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    long_path = (
        "variants/fp32/" + "/".join(["a-long-folder-name"] * 12) + "/weights.bin"
    )  # needs an extended tar header
    contents = {
        MODEL_PATH: hashlib.shake_128(b"model").digest(200_000),
        "golden/golden.npz": b"golden",
        "labels.txt": b"",
        "report.html": b"<html>",
        long_path: hashlib.shake_128(b"weights").digest(70_000),
    }
    return _write(tmp_path / "bundle", contents)


def _tree(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_packing_and_unpacking_is_the_identity(bundle: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    pack(bundle, tmp_path / "a.bundle", seen.append)
    unpack(tmp_path / "a.bundle", tmp_path / "out")
    assert _tree(tmp_path / "out") == _tree(bundle)
    assert sum(seen) == sum(len(data) for data in _tree(bundle).values())
    verify(tmp_path / "out")


def test_equal_directories_pack_to_equal_bytes(bundle: Path, tmp_path: Path) -> None:
    pack(bundle, tmp_path / "a.bundle")
    unpack(tmp_path / "a.bundle", tmp_path / "out")  # other times, other order of creation
    (tmp_path / "out/labels.txt").chmod(0o755)
    pack(tmp_path / "out", tmp_path / "b.bundle")
    assert (tmp_path / "a.bundle").read_bytes() == (tmp_path / "b.bundle").read_bytes()
    with tarfile.open(tmp_path / "a.bundle") as tar:
        members = tar.getmembers()
    assert [member.name for member in members[:2]] == ["manifest.json", "chunks.json"]
    data = (tmp_path / "a.bundle").read_bytes()
    for member in members:  # a file inside can be addressed by offset
        assert data[member.offset_data :][: member.size] == (bundle / member.name).read_bytes()


def test_a_failed_packing_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    (bundle / "report.html").unlink()
    target = tmp_path / "a.bundle"
    target.write_bytes(b"the one before")
    with pytest.raises(OSError, match="report"):
        pack(bundle, target)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["a.bundle"]
    assert target.read_bytes() == b"the one before"


def test_verifying_names_every_byte(bundle: Path) -> None:
    seen: list[int] = []
    manifest = verify(bundle, seen.append)
    assert manifest == read_manifest(bundle)
    assert sum(seen) == sum(entry.size_bytes for entry in manifest.files)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _replace_json(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value))


def _reindex(directory: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change the chunk index and let the manifest promise the changed one."""
    _replace_json(directory / "chunks.json", change)
    entry = list_files(directory, ["chunks.json"])[0].model_dump()

    def promise(manifest: dict[str, object]) -> None:
        files = manifest["files"]
        assert isinstance(files, list)
        manifest["files"] = [entry if file["path"] == "chunks.json" else file for file in files]

    _replace_json(directory / "manifest.json", promise)


def _first_file(value: dict[str, object]) -> dict[str, object]:
    files = value["files"]
    assert isinstance(files, list)
    return max(files, key=lambda file: len(file["chunks"]))  # type: ignore[no-any-return]


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _as_link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


TAMPERED: dict[str, tuple[Tamper, type[Exception]]] = {
    "manifest missing": (lambda d: (d / "manifest.json").unlink(), MalformedBundle),
    "manifest a folder": (lambda d: _as_folder(d / "manifest.json"), MalformedBundle),
    "manifest truncated": (lambda d: (d / "manifest.json").write_bytes(b"{"), MalformedDocument),
    "manifest too large": (lambda d: (d / "manifest.json").write_bytes(b" " * 2**21), MalformedDocument),
    "manifest newer": (
        lambda d: _replace_json(d / "manifest.json", lambda m: m.update(schema_version=2)), UnsupportedSchema,
    ),
    "index missing": (lambda d: (d / "chunks.json").unlink(), MalformedBundle),
    "index changed": (lambda d: _flip(d / "chunks.json"), DigestMismatch),
    "index newer": (lambda d: _reindex(d, lambda i: i.update(schema_version=2)), UnsupportedSchema),
    "index empty": (lambda d: _reindex(d, lambda i: i.update(files=[])), DigestMismatch),
    "index of other chunks": (
        lambda d: _reindex(d, lambda i: _first_file(i)["chunks"][0].update(sha256="0" * 64)),  # type: ignore[index]
        DigestMismatch,
    ),
    "index whose sizes do not add up": (
        lambda d: _reindex(d, lambda i: _first_file(i)["chunks"].pop()), MalformedDocument,  # type: ignore[attr-defined]
    ),
    "index in another order": (
        lambda d: _reindex(d, lambda i: _first_file(i)["chunks"].reverse()),  # type: ignore[attr-defined]
        DigestMismatch,
    ),
    "a file more": (lambda d: (d / "extra").write_bytes(b""), MalformedBundle),
    "a link to a folder more": (lambda d: (d / "extra").symlink_to("/"), MalformedBundle),
    "a link instead of a file": (lambda d: _as_link(d / "labels.txt"), MalformedBundle),
}  # fmt: skip


@pytest.mark.parametrize(("tamper", "error"), TAMPERED.values(), ids=TAMPERED.keys())
def test_tampered(bundle: Path, tamper: Tamper, error: type[Exception]) -> None:
    tamper(bundle)
    with pytest.raises(error) as caught:
        verify(bundle)
    assert "\n" not in str(caught.value)


FILE_TAMPERS: dict[str, tuple[Tamper, type[Exception]]] = {
    "changed": (_flip, DigestMismatch),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-1]), DigestMismatch),
    "emptied": (lambda p: p.write_bytes(b""), DigestMismatch),
    "grown": (lambda p: p.write_bytes(p.read_bytes() + b"x"), DigestMismatch),
    "missing": (lambda p: p.unlink(), MalformedBundle),
}


@pytest.mark.parametrize(("tamper", "error"), FILE_TAMPERS.values(), ids=FILE_TAMPERS.keys())
def test_each_file_tampered(bundle: Path, tmp_path: Path, tamper: Tamper, error: type[Exception]) -> None:
    for entry in read_manifest(bundle).files:
        if entry.size_bytes == 0 and tamper is not FILE_TAMPERS["missing"][0]:
            continue
        copy = tmp_path / "copy"
        shutil.copytree(bundle, copy)
        tamper(copy / entry.path)
        with pytest.raises(error, match=entry.path):
            verify(copy)
        shutil.rmtree(copy)


def test_reading_what_is_no_bundle(tmp_path: Path) -> None:
    for read in (read_manifest, read_chunk_index):
        with pytest.raises(MalformedBundle, match="is no bundle"):
            read(tmp_path)


def _tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def _member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", pax: dict[str, str] | None = None
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers = kind, link, pax or {}
    return info


HOSTILE_MEMBERS: dict[str, list[tuple[tarfile.TarInfo, bytes]]] = {
    "symbolic link": [(_member("a", tarfile.SYMTYPE, "/etc/passwd"), b"")],
    "hard link": [(_member("a"), b"x"), (_member("b", tarfile.LNKTYPE, "a"), b"")],
    "character device": [(_member("a", tarfile.CHRTYPE), b"")],
    "block device": [(_member("a", tarfile.BLKTYPE), b"")],
    "pipe": [(_member("a", tarfile.FIFOTYPE), b"")],
    "directory": [(_member("a", tarfile.DIRTYPE), b"")],
    "old sparse": [(_member("a", tarfile.GNUTYPE_SPARSE), b"x")],
    "unknown type": [(_member("a", b"V"), b"")],
    "traversal": [(_member("../a"), b"x")],
    "traversal inside": [(_member("a/../../b"), b"x")],
    "absolute": [(_member("/tmp/a"), b"x")],
    "backslashes": [(_member("..\\a"), b"x")],
    "reserved name": [(_member("con"), b"x")],
    "empty name": [(_member(""), b"x")],
    "twice": [(_member("a"), b"x"), (_member("a"), b"y")],
    "a file, then a folder": [(_member("a"), b"x"), (_member("a/b"), b"y")],
    "a folder, then a file": [(_member("a/b"), b"y"), (_member("a"), b"x")],
    "extended name": [(_member("a", pax={"path": "../../b"}), b"x")],
    "extended size": [(_member("a", pax={"size": str(LIMITS.bundle_bytes + 1)}), b"x")],
    "extended negative size": [(_member("a", pax={"size": "-512"}), b"x"), (_member("b"), b"y")],
    "extended sparse": [(_member("a", pax={"GNU.sparse.map": "0,1,9999999,1", "GNU.sparse.size": "10000000"}), b"xy")],
    "extended sparse, no numbers": [(_member("a", pax={"GNU.sparse.map": "0,x"}), b"x")],
    "extended sparse 1.0": [
        (_member("a", pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}), b"q"),
    ],
    "too many": [(_member(f"f{number}"), b"") for number in range(LIMITS.bundle_files + 2)],
}  # fmt: skip


@pytest.mark.parametrize("members", HOSTILE_MEMBERS.values(), ids=HOSTILE_MEMBERS.keys())
def test_hostile_archives(tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    packed = _tar(tmp_path / "x.bundle", *members)
    inner = tmp_path / "deep" / "out"
    inner.mkdir(parents=True)
    with pytest.raises(MalformedBundle) as caught:
        unpack(packed, inner)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "x.bundle"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]
    assert sum(p.stat().st_size for p in inner.rglob("*") if p.is_file()) < 1000


def _header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("h")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_that_are_huge_or_without_end(tmp_path: Path, kind: bytes) -> None:
    packed = tmp_path / "x.bundle"
    with packed.open("wb") as file:
        file.write(_header(kind, 8 * 1024**3))
        file.truncate(9 * 1024**3)  # sparse: reading the header whole would take 8 GiB of memory
    with pytest.raises(MalformedBundle):
        unpack(packed, tmp_path / "out")
    packed.write_bytes(_header(kind, 0) * 5000)
    with pytest.raises(MalformedBundle):
        unpack(packed, tmp_path / "out")


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.bundle", "w:gz") as tar:
        tar.addfile(_member("a"), io.BytesIO(b""))
    with pytest.raises(MalformedBundle):
        unpack(tmp_path / "x.bundle", tmp_path / "out")


def test_truncated_in_every_region(bundle: Path, tmp_path: Path) -> None:
    packed = tmp_path / "a.bundle"
    pack(bundle, packed)
    whole = packed.read_bytes()
    with tarfile.open(packed) as tar:
        members = tar.getmembers()
    last_byte = max(member.offset_data + member.size for member in members)
    starts = {edge for m in members for edge in (m.offset, m.offset_data, m.offset_data + m.size)}
    cuts = {edge + shift for edge in starts for shift in (-1, 0, 1, 100)}
    for size in sorted(cut for cut in cuts if 0 <= cut < last_byte):
        packed.write_bytes(whole[:size])
        out = tmp_path / f"out-{size}"
        out.mkdir()
        with pytest.raises(REFUSED):
            unpack(packed, out)
            verify(out)
        shutil.rmtree(out)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0), value=st.integers(0, 255))
def test_any_changed_byte_is_refused_or_without_effect(bundle: Path, position: int, value: int) -> None:
    parent = bundle.parent
    pack(bundle, parent / "a.bundle")
    data = bytearray((parent / "a.bundle").read_bytes())
    data[position % len(data)] = value
    (parent / "a.bundle").write_bytes(data)
    shutil.rmtree(parent / "out", ignore_errors=True)
    (parent / "out").mkdir()
    try:
        unpack(parent / "a.bundle", parent / "out")
        verify(parent / "out")
    except REFUSED:
        return
    # What the manifest promises of each file is true; only of itself it promises nothing here.
    assert {**_tree(parent / "out"), "manifest.json": b""} == {**_tree(bundle), "manifest.json": b""}


@settings(max_examples=100)
@given(data=st.binary(max_size=2000))
def test_arbitrary_bytes_are_no_packed_bundle(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("any")
    (directory / "x.bundle").write_bytes(data)
    with pytest.raises(REFUSED):
        unpack(directory / "x.bundle", directory / "out")
        verify(directory / "out")


def test_opened_takes_both_forms_and_cleans_up(bundle: Path, tmp_path: Path) -> None:
    with opened(bundle) as directory:
        assert directory == bundle
    pack(bundle, tmp_path / "a.bundle")
    with opened(tmp_path / "a.bundle") as directory:
        verify(directory)
    assert not directory.exists()
    with pytest.raises(MalformedBundle, match="does not exist"), opened(tmp_path / "none"):
        pass
