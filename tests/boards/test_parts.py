"""The decisions on the way to an emulated board, without one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.boards.debian import sources
from tests.boards.kernels import load_order

STANZAS = """Types: deb
URIs: http://mirror.invalid/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

# what is fixed in a hurry
Types: deb
URIs: http://mirror.invalid/debian-security
Suites: bookworm-security
Components: main

Types: deb-src
URIs: http://mirror.invalid/debian
Suites: bookworm
Components: main
"""
OTHERS = "Types: deb\nURIs: http://others.invalid\nSuites: nodistro\nComponents: main\n"
LINES = """# deb http://mirror.invalid/debian bookworm main
deb http://mirror.invalid/debian bookworm main contrib
deb [signed-by=/a/key] http://mirror.invalid/debian-security bookworm-security main
deb http://mirror.invalid/debian bookworm/updates main
deb-src http://mirror.invalid/debian bookworm main
deb [arch=amd64] http://others.invalid bookworm stable
deb http://mirror.invalid/debian trixie main
"""


def written(tmp_path: Path, with_security: bool) -> str:
    apt, folder = tmp_path / "apt", tmp_path / "written"
    (apt / "sources.list.d").mkdir(parents=True)
    folder.mkdir()
    (apt / "sources.list").write_text(LINES)
    (apt / "sources.list.d" / "debian.sources").write_text(STANZAS)
    (apt / "sources.list.d" / "others.sources").write_text(OTHERS)
    names = sources("bookworm", with_security, folder, apt)
    assert names == [str(folder / "debian.sources"), str(folder / "debian.list")]
    return "".join(Path(name).read_text() for name in names)


@pytest.mark.parametrize("with_security", [True, False])
def test_roots_get_what_the_machine_gets_of_its_release_from_debian_alone(tmp_path: Path, with_security: bool) -> None:
    text = written(tmp_path, with_security)
    assert text.count("bookworm-updates") == 1
    assert "bookworm main contrib" in text
    assert ("debian-security bookworm-security" in text, "Suites: bookworm-security" in text) == (with_security,) * 2
    for unwanted in ("others.invalid", "trixie", "deb-src", "# deb"):
        assert unwanted not in text


def test_a_module_is_loaded_after_all_that_it_needs() -> None:
    dependencies = (
        "kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko\n"
        "kernel/net/usb/cdc_ether.ko: kernel/net/usb/usbnet.ko kernel/net/mii.ko\n"
        "kernel/net/usb/usbnet.ko: kernel/net/mii.ko\n"
        "kernel/drivers/mmc/sdhci-iproc.ko:\n"
    )
    order = load_order(dependencies, ("sdhci_iproc", "cdc_ether", "usbnet", "built_in", "ext4"))
    assert [Path(file).stem for file in order] == [
        *("sdhci-iproc", "mii", "usbnet", "cdc_ether", "jbd2", "mbcache", "crc16", "ext4"),
    ]
