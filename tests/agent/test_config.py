from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomllib
from pydantic import BaseModel

from autoglm_edge_agent.config import Config
from autoglm_edge_agent.config_file import load_config
from autoglm_edge_agent.errors import ConfigurationError

GOOD = '[device]\nfleet = "f"\nname = "d"\n[broker]\nurl = "mqtt://h"\n'


def test_the_smallest_configuration(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(GOOD)
    config = load_config(path)
    assert (config.device.name, config.broker.address().port, config.inference.http) == ("d", 1883, "127.0.0.1:8000")


def test_options_of_providers_come_to_those_who_try_them(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(GOOD + '[inference.probe.providers.onnxruntime.MyPlugin]\nlibrary = "/opt/mine.so"\n')
    terms = load_config(path).inference.probe.terms()
    assert terms.providers == {"onnxruntime": {"MyPlugin": {"library": "/opt/mine.so"}}}


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
    (
        "a provider without a name",
        GOOD.encode() + b'[inference.probe.providers.onnxruntime.""]\n',
        "inference.probe.providers.onnxruntime",
    ),
    (
        "an option that is no text",
        GOOD.encode() + b"[inference.probe.providers.onnxruntime.qnn]\nprofiling = 1\n",
        "inference.probe.providers.onnxruntime.qnn.profiling",
    ),
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


DOCS = Path(__file__).parents[2] / "docs"
REQUIRED = object()


def _keys_of(section: type[BaseModel], path: str = "") -> Iterator[tuple[str, Any]]:
    """The keys that a section knows, each with its default as a file would have it."""
    for name, field in section.model_fields.items():
        kinds = (field.annotation, *getattr(field.annotation, "__args__", ()))
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if inner:
            yield from _keys_of(inner[0], f"{path}{name}.")
        else:
            default = REQUIRED if field.is_required() else field.default
            yield f"{path}{name}", str(default) if isinstance(default, Path) else default


def _keys_in(values: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and f"{path}{name}" not in KNOWN:
            yield from _keys_in(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", tuple(value) if isinstance(value, list) else value


def _examples(page: str) -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


KNOWN = dict(_keys_of(Config))


def test_the_documented_configuration_has_every_key_and_its_default() -> None:
    (example,) = _examples("agent.md")
    shown = dict(_keys_in(tomllib.loads(example)))
    assert {name: value for name, value in shown.items() if KNOWN[name] not in (REQUIRED, None, value)} == {}
    commented = dict(_keys_in(tomllib.loads(re.sub(r"^# (?=[a-z_]+ = |\[)", "", example, flags=re.MULTILINE))))
    assert commented.keys() == KNOWN.keys()


@pytest.mark.parametrize("page", ["accelerators.md", "inference.md", "enrolment.md"])
def test_other_pages_name_keys_that_there_are(page: str) -> None:
    named = [name for example in _examples(page) for name, _ in _keys_in(tomllib.loads(example))]
    assert named
    assert set(named) <= KNOWN.keys()
