"""What can go wrong on the way to a card, with what a user can do about it.

FirmwareError
 |- ImageUnusable      not an image, cut short, or laid out in a way that nobody here knows
 |- CardRefused        a card that must not, or cannot, be written
 |- SettingRefused     a claim, a name or a passphrase that cannot be put onto a card
 `- ProgramFailed      a program of the workstation is missing or did not do its part
"""

from __future__ import annotations


class FirmwareError(Exception):
    """Its text is one line: what failed, why, what to do."""


class ImageUnusable(FirmwareError):
    """The image's fault. `path` is the image."""

    def __init__(self, path: object, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = str(path)
        self.problem = problem


class CardRefused(FirmwareError):
    """The card's fault, or that of the choice of it. `device` is the card."""

    def __init__(self, device: object, problem: str) -> None:
        super().__init__(f"{device}: {problem}")
        self.device = str(device)
        self.problem = problem


class SettingRefused(FirmwareError):
    """What was asked for cannot be put onto a card."""


class ProgramFailed(FirmwareError):
    """A program that is used here is missing or ended with an error."""

    def __init__(self, program: str, problem: str) -> None:
        super().__init__(f"{program}: {problem}")
        self.program = program
        self.problem = problem
