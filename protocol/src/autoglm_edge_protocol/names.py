"""How fleets, devices, bundles and files inside a bundle may be called."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from autoglm_edge_protocol.errors import MalformedDocument

LEVEL_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
"""One level of a topic: what every broker, NATS with its dots and AWS IoT Core included, carries unchanged."""

FleetName = Annotated[str, StringConstraints(pattern=LEVEL_PATTERN)]
EVERYBODY = "_all"
"""In the place of a device in topics: all that follow a file. No device has this name."""


def check_device_name(name: str) -> str:
    """Return `name` if a device can have it, else raise ValueError."""
    if name == EVERYBODY:
        raise ValueError(f"{EVERYBODY} stands for all devices and names none")
    return name


DeviceName = Annotated[str, StringConstraints(pattern=LEVEL_PATTERN), AfterValidator(check_device_name)]
BoardId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""A digest of what a board's maker has written into it, another for each fleet."""
BundleName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
BundleVersion = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$")]

_SEGMENT = re.compile(r"[A-Za-z0-9_@+=,.-]{1,128}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def check_relative_path(path: str) -> str:
    """Return `path` if it can only lie inside the bundle on every file system, else raise ValueError."""
    if len(path) > 512:
        raise ValueError("the path is longer than 512 characters")
    for segment in path.split("/"):
        if not _SEGMENT.fullmatch(segment) or segment.strip(".") == "" or _RESERVED.fullmatch(segment):
            raise ValueError(f"{path!r} is not a plain relative path")
        if segment.endswith("."):
            raise ValueError(f"{path!r} has a name that Windows would change")
    return path


RelativePath = Annotated[str, AfterValidator(check_relative_path)]


class BundleId(BaseModel):
    """A bundle by name and version, written `name@version`."""

    model_config = ConfigDict(frozen=True)

    name: BundleName
    version: BundleVersion

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> BundleId:
        """Read `name@version`. Raises MalformedDocument."""
        name, separator, version = text.partition("@")
        if not separator:
            raise MalformedDocument("bundle name", f"{text!r} has no version; write NAME@VERSION")
        try:
            return cls(name=name, version=version)
        except ValueError:
            raise MalformedDocument(
                "bundle name", f"{text!r}; names use a-z 0-9 _ -, versions 0-9 A-Z a-z . + -"
            ) from None
