"""What device and fleet write to keep goes through `durable`, where faults are injected; nothing writes beside it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import autoglm_edge_agent
import autoglm_edge_fleet
import autoglm_edge_protocol

PACKAGES = (autoglm_edge_agent, autoglm_edge_fleet, autoglm_edge_protocol)
OF_PATHS = {
    "hardlink_to", "mkdir", "rename", "rmdir", "symlink_to", "touch", "unlink", "write_bytes", "write_text",
}  # fmt: skip
OF_MODULES = {
    "copy", "copy2", "copyfile", "copyfileobj", "copytree", "link", "makedirs", "mkdir", "move", "remove", "rename",
    "replace", "rmdir", "rmtree", "symlink", "truncate", "unlink",
}  # fmt: skip
"""Of os and shutil."""
THROWN_AWAY = {
    "autoglm_edge_agent/inference/lease.py": "a lock, in which nothing is written",
    "autoglm_edge_agent/inference/listeners.py": "sockets, which no restart keeps",
    "autoglm_edge_agent/inference/sacrifice.py": "a word to the kernel",
    "autoglm_edge_agent/storage/directory.py": "the lock, in which nothing is written",
    "autoglm_edge_agent/systemd/devices.py": "drop-ins of a unit, made anew at each start of the board",
    "autoglm_edge_agent/trust/vault.py": "the verifier's working copy",
    "autoglm_edge_fleet/key_files.py": "an empty file, for `durable` to write a secret into that others may not read",
    "autoglm_edge_fleet/local_broker.py": "the log of a broker for demonstrations",
    "autoglm_edge_fleet/trust/verify.py": "a copy to verify as a device would",
    "autoglm_edge_protocol/bundle.py": "a bundle that is packed or unpacked where a user says, on a workstation",
    "autoglm_edge_protocol/durable.py": "the one way",
    "autoglm_edge_protocol/golden.py": "an archive in memory",
}


def writes(tree: ast.AST) -> Iterator[str]:
    """Give each call that changes a file system, but for those of a `Disk`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        on = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        opens = name == "open" and (_opens_for_writing(node) or "O_CREAT" in ast.unparse(node)) and "devnull" not in on
        of_module = on in ("os", "shutil") and name in OF_MODULES
        if opens or of_module or (name in OF_PATHS and "disk" not in on.lower()):
            yield f"{on}.{name}"


def _opens_for_writing(call: ast.Call) -> bool:
    values = (*call.args, *(word.value for word in call.keywords))
    texts = [str(each.value) for each in values if isinstance(each, ast.Constant)]
    return any(re.fullmatch(r"[rwaxbt+]*[wax+][bt+]*", text) for text in texts)


def test_nothing_writes_beside_the_one_way() -> None:
    found = {}
    for package in PACKAGES:
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            if calls := sorted(set(writes(ast.parse(path.read_text())))):
                found[str(path.relative_to(root.parent))] = calls
    assert set(found) == set(THROWN_AWAY), {name: found.get(name) for name in set(found) ^ set(THROWN_AWAY)}


def test_what_writes_is_found() -> None:
    code = "Path('a').write_text('x'); open('a', 'wb'); os.replace('a', 'b'); shutil.move('a', 'b'); disk.unlink(p)"
    code += "; Path(os.devnull).open('wb')"
    assert list(writes(ast.parse(code))) == ["Path('a').write_text", ".open", "os.replace", "shutil.move"]
