from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_protocol.errors import MalformedDocument
from autoglm_edge_protocol.names import BundleId, check_relative_path

segments = st.from_regex(r"[a-z0-9_@+=,-][A-Za-z0-9_@+=,-]{0,20}(\.[a-z0-9]{1,4})?", fullmatch=True)


@pytest.mark.parametrize("path", ["a", "a/b.c", "variants/int8/model.onnx", ".hidden", "a" * 128, "con1", "nulls.txt"])
def test_plain_paths(path: str) -> None:
    assert check_relative_path(path) == path


@pytest.mark.parametrize(
    "path",
    ["", "/", "/etc/passwd", "..", ".", "a/../b", "a/./b", "a//b", "a/", "a\\b", "..\\b", "C:/x", "C:", "a:stream",
     "~/x", "a b", "a\0b", "a\nb", "a\n", "é", "a.", "a./b", "...", "con", "CON", "nul.txt",
     "a/PRN", "com1", "Lpt9.log",
     "aux/x",
     "a*", "a?", "<a>", "a|b", '"a"', "a" * 129, "/".join(["abcdefg"] * 65), "CONIN$", "com¹"],
)  # fmt: skip
def test_paths_that_some_system_takes_elsewhere(path: str) -> None:
    with pytest.raises(ValueError, match=r"plain relative path|Windows|longer") as caught:
        check_relative_path(path)
    assert str(caught.value).isprintable()


@given(st.text(max_size=40))
def test_what_is_accepted_is_ascii_and_stays_inside(path: str) -> None:
    try:
        check_relative_path(path)
    except ValueError:
        return
    assert path.isascii()
    assert not path.startswith("/")
    assert all(part.strip(".") and not part.endswith((".", " ")) for part in path.split("/"))


@given(
    st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True),
    st.from_regex(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}", fullmatch=True),
)
def test_bundle_ids_survive_text(name: str, version: str) -> None:
    bundle = BundleId(name=name, version=version)
    assert BundleId.parse(str(bundle)) == bundle


@pytest.mark.parametrize("text", ["", "a", "@", "a@", "@1", "A@1", "a@1@2", "a@1 ", "a@-1", "a/b@1", "a@1\n", "-a@1"])
def test_texts_that_name_no_bundle(text: str) -> None:
    with pytest.raises(MalformedDocument):
        BundleId.parse(text)
