"""What can go wrong inside a worker.

InferenceError
 |- ModelUnusable      the bundle's model cannot be loaded
 `- RequestError       a request that cannot be answered; carries the HTTP status
"""

from __future__ import annotations


class InferenceError(Exception):
    """Base of the worker's errors."""


class ModelUnusable(InferenceError):
    """The runtime does not load the model, or the manifest does not describe it."""


class RequestError(InferenceError):
    """A request that cannot be answered."""

    def __init__(self, status: int, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        """When it is worth while to ask again."""
