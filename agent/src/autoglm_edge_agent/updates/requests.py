"""What a transfer needs of the way to the fleet."""

from __future__ import annotations

from typing import Protocol

from autoglm_edge_protocol.transfer import FetchRequest, StreamCredit


class Requests(Protocol):
    """Where requests go, and what is said about streams."""

    @property
    def connected(self) -> bool:
        """Whether a request can be sent now."""

    def request(self, request: FetchRequest) -> bool:
        """Send a request, at most once; False when it could not be sent."""

    def follow(self, sha256: str) -> None:
        """Listen to what is sent to all that lack a file."""

    def unfollow(self, sha256: str) -> None:
        """Listen no more."""

    def credit(self, credit: StreamCredit) -> bool:
        """Say how far a stream has come, at most once; False when it could not be said."""

    async def acknowledged_credit(self, credit: StreamCredit) -> None:
        """Say it at least once, and return when the broker has acknowledged it, behind all that it holds for this
        device. Raises LinkError."""
