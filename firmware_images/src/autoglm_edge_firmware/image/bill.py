"""The bill of materials of an image: SPDX 2.3 in JSON, from dpkg's own list and the modules of the agent's package.

Pure, but for reading the root.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

_NAMES = uuid.UUID("7d4f26c0-9d7c-5b0e-8f6a-2f7f6f0a1c12")
_LIBRARY = "opt/autoglm-edge/lib"


@dataclass(frozen=True, order=True)
class Component:
    """One package, or one distribution of Python."""

    kind: str
    name: str
    version: str
    architecture: str = ""
    license: str = ""

    @property
    def url(self) -> str:
        """Its package URL (purl-spec)."""
        suffix = f"?arch={self.architecture}" if self.architecture else ""
        return f"pkg:{self.kind}/{quote(self.name)}@{quote(self.version, safe='')}{suffix}"

    @property
    def identifier(self) -> str:
        """What the document calls it."""
        return "SPDXRef-" + re.sub(
            r"[^A-Za-z0-9.-]+", "-", f"{self.kind}-{self.name}-{self.version}-{self.architecture}"
        )


def components(root: Path) -> tuple[Component, ...]:
    """Return what is in a root, sorted."""
    status = (root / "var/lib/dpkg/status").read_text()
    return tuple(sorted({*_debian(status), *_python(root / _LIBRARY)}))


def _debian(status: str) -> Iterator[Component]:
    for stanza in status.split("\n\n"):
        fields = dict(re.findall(r"^([A-Z][\w-]*): (.*)$", stanza, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            yield Component("deb/debian", fields["Package"], fields["Version"], fields["Architecture"])


def _python(library: Path) -> Iterator[Component]:
    for metadata in library.glob("**/*.dist-info/METADATA"):
        fields = dict(
            re.findall(r"^(Name|Version|License-Expression): (.*)$", metadata.read_text(errors="replace"), re.MULTILINE)
        )
        name = re.sub(r"[-_.]+", "-", fields["Name"]).lower()
        yield Component("pypi", name, fields["Version"], license=fields.get("License-Expression", ""))


def to_text(found: tuple[Component, ...], image: str, sha256: str, epoch: int) -> str:
    """Return the document. The same components give the same text."""
    packages = [_image(image, sha256), *(_package(each) for each in found)]
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": image,
        "documentNamespace": f"urn:uuid:{uuid.uuid5(_NAMES, f'{image}/{sha256}')}",
        "creationInfo": {
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
            "creators": ["Tool: autoglm-edge-flash"],
        },
        "documentDescribes": ["SPDXRef-image"],
        "packages": packages,
        "relationships": [
            {"spdxElementId": "SPDXRef-image", "relationshipType": "CONTAINS", "relatedSpdxElement": each.identifier}
            for each in found
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def _image(name: str, sha256: str) -> dict[str, object]:
    return {
        "SPDXID": "SPDXRef-image",
        "name": name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "checksums": [{"algorithm": "SHA256", "checksumValue": sha256}],
    }


def _package(component: Component) -> dict[str, object]:
    return {
        "SPDXID": component.identifier,
        "name": component.name,
        "versionInfo": component.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseDeclared": component.license or "NOASSERTION",
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": component.url,
            }
        ],
    }
