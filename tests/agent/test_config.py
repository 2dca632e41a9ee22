from __future__ import annotations

from pathlib import Path

import pytest

from autoglm_edge_agent.config import load_config
from autoglm_edge_agent.errors import ConfigurationError

GOOD = '[device]\nfleet = "f"\nname = "d"\n[broker]\nurl = "mqtt://h"\n'


def test_the_smallest_configuration(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(GOOD)
    config = load_config(path)
    assert (config.device.name, config.broker.address().port, config.inference.http) == ("d", 1883, "127.0.0.1:8000")


WRONG: list[tuple[str, bytes, str]] = [
    ("empty", b"", "device: Field required"),
    ("not TOML", b"[device", "is not TOML"),
    ("not text", b"\xff\xfe", "cannot be read"),
    ("nested without end", b"a = " + b"[" * 20_000, "is not TOML"),
    ("no broker", b'[device]\nfleet = "f"\nname = "d"\n', "broker: Field required"),
    ("a name with a slash", GOOD.replace('"d"', '"a/b"').encode(), "device.name"),
    ("a fleet that is a number", GOOD.replace('"f"', "3").encode(), "device.fleet"),
    ("an unknown section", GOOD.encode() + b"[stroage]\n", "stroage: Extra inputs are not permitted"),
    ("an unknown key", GOOD.encode() + b"[storage]\nreserve = 3\n", "storage.reserve"),
    ("a broker that is no URL", GOOD.replace("mqtt://h", "h:1883").encode(), "broker address"),
    ("a broker of another kind", GOOD.replace("mqtt://h", "http://h").encode(), "broker address"),
    ("a password is not shown", GOOD.replace("mqtt://h", "http://u:hush@h").encode(), "the URL cannot be understood"),
    ("a negative reserve", GOOD.encode() + b"[storage]\nreserve_bytes = -1\n", "storage.reserve_bytes"),
    ("a NUL in a folder", GOOD.encode() + b'[storage]\ndirectory = "a\\u0000b"\n', "a path cannot hold a NUL"),
    ("a NUL in a socket", GOOD.encode() + b'[inference]\nsocket = "a\\u0000b"\n', "a path cannot hold a NUL"),
    ("a long socket", GOOD.encode() + b'[inference]\nsocket = "/' + b"x" * 120 + b'"\n', "at most 107 bytes"),
    (
        "a root and no trust at all",
        GOOD.encode() + b'[trust]\nroot = "/r.json"\ninsecure = true\n',
        "root and insecure exclude each other",
    ),
    ("a mirror without TLS", GOOD.encode() + b'[trust]\nrepository_url = "http://m/"\n', "is not an https:// address"),
    (
        "a mirror at no port",
        GOOD.encode() + b'[trust]\nrepository_url = "https://m:99999/"\n',
        "is not an https:// address",
    ),
    (
        "a mirror of no name",
        GOOD.encode() + b'[trust]\nrepository_url = "https://m..n/"\n',
        "is not an https:// address",
    ),
    (
        "a mirror's path that no request can name",
        GOOD.encode() + b'[trust]\nrepository_url = "https://m/a b"\n',
        "is not an https:// address",
    ),
    ("an endless trial", GOOD.encode() + b"[inference]\ntrial_timeout_s = inf\n", "inference.trial_timeout_s"),
    ("a root that is not there", GOOD.encode() + b'[trust]\nroot = "/no/r.json"\n', "[trust] root"),
    ("an open address", GOOD.encode() + b'[inference]\nhttp = "0.0.0.0:80"\n', "is not a loopback address"),
    ("no port", GOOD.encode() + b'[inference]\nhttp = "127.0.0.1"\n', "write 127.0.0.1:8000"),
    ("no threads", GOOD.encode() + b"[inference]\nthreads = 0\n", "inference.threads"),
    ("an unknown source", GOOD.encode() + b'[transfer]\nsources = ["ftp"]\n', "transfer.sources"),
    ("no source", GOOD.encode() + b"[transfer]\nsources = []\n", "transfer.sources"),
    ("a source twice", GOOD.encode() + b'[transfer]\nsources = ["https", "https"]\n', "each source is named once"),
    ("a source after the fleet", GOOD.encode() + b'[transfer]\nsources = ["fleet", "https"]\n', "the fleet comes last"),
    ("no time", GOOD.encode() + b"[inference]\nrun_timeout_s = 0\n", "inference.run_timeout_s"),
    (
        "a time that is no number",
        GOOD.encode() + b"[telemetry]\nbatch_interval_s = nan\n",
        "telemetry.batch_interval_s",
    ),
]


@pytest.mark.parametrize(("what", "data", "text"), WRONG, ids=[row[0] for row in WRONG])
def test_each_mistake_is_one_line_that_names_it(tmp_path: Path, what: str, data: bytes, text: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError) as caught:
        load_config(path)
    line = str(caught.value)
    assert line.startswith(str(path)) and text in line, what
    assert "\n" not in line and "hush" not in line and len(line) < 400


def test_a_folder_and_a_missing_file_are_one_line_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_config(tmp_path)
    with pytest.raises(ConfigurationError, match="does not exist; docs/agent\\.md shows"):
        load_config(tmp_path / "none.toml")


def test_a_file_of_the_broker_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        '[device]\nfleet = "f"\nname = "d"\n[broker]\nurl = "mqtts://h"\nca_file = "/nowhere/ca.pem"\n',
        encoding="utf-8",
    )
    with pytest.raises(ConfigurationError, match=r"\[broker\] ca_file = '/nowhere/ca.pem' is no file"):
        load_config(path)
