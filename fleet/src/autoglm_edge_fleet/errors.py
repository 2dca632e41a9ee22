"""What can go wrong on the fleet side.

FleetError
 |- NoFleetHere           the directory holds no fleet
 |- AlreadyAFleet         it holds one, and a new one was to be made
 |- BadSettings           `fleet.toml` cannot be used
 |- UnknownBundle         no such bundle is published
 |- UnknownDevice         no such device was ever seen
 |- UnknownVariant        the bundle has no such variant
 |- BundleConflict        other content under a name and version that are taken
 |- UnknownCommand        no such command was ever queued
 |- RefusedReport         a device said something that cannot be true; it is noted and left out
 |- InUse                 another process does what only one may do
 |- TrustError            keys and signed metadata of the repository
 |   |- NoTrust           the fleet has no keys yet
 |   |- KeyUnavailable    a key that is needed is not at hand, or no passphrase for it
 |   |- WrongPassphrase   the passphrase does not open the key
 |   |- NotEnoughKeys     fewer have signed than must
 |   `- BadMetadata       the metadata is damaged, forged, expired or does not fit together
 |- EnrolmentError        claims, certificates and the authority that signs them
 |   |- NoAuthority       the fleet has no authority yet
 |   |- UnknownClaim      no such claim was ever made
 |   `- NotWaiting        nobody of this name waits to be approved
 |- StorageError          the database or the repository cannot be read or written
 |   `- NewerDatabase     made by a newer release
 `- BrokerUnavailable     no local broker could be started
"""

from __future__ import annotations

from collections.abc import Iterable


class FleetError(Exception):
    """Base of this distribution's errors. `str(error)` is one line for a user: what failed, why, what to do."""


class NoFleetHere(FleetError):
    """The directory holds no fleet."""


class AlreadyAFleet(FleetError):
    """The directory holds a fleet already."""


class BadSettings(FleetError):
    """`fleet.toml` cannot be used."""


class UnknownBundle(FleetError):
    """No such bundle is published."""

    def __init__(self, bundle: str, known: Iterable[str]) -> None:
        listed = ", ".join(known)
        super().__init__(f"{bundle} is not published; " + (f"published: {listed}" if listed else "nothing is yet"))
        self.bundle = bundle


class UnknownDevice(FleetError):
    """No such device was ever seen."""

    def __init__(self, device: str, known: Iterable[str]) -> None:
        names = list(known)
        listed = f"known: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}" if names else "none is known yet"
        super().__init__(f"no device {device!r} has been seen; {listed}")
        self.device = device


class UnknownVariant(FleetError):
    """The bundle has no such variant."""


class BundleConflict(FleetError):
    """Other content under a name and version that are taken."""


class UnknownCommand(FleetError):
    """No such command was ever queued."""


class RefusedReport(FleetError):
    """A device said something that cannot be true."""


class InUse(FleetError):
    """Another process does what only one may do at a time."""


class TrustError(FleetError):
    """Something about keys or signed metadata."""


class NoTrust(TrustError):
    """The fleet has no keys yet."""


class KeyUnavailable(TrustError):
    """A key that is needed is not at hand."""


class WrongPassphrase(TrustError):
    """The passphrase does not open the key."""


class NotEnoughKeys(TrustError):
    """Fewer keys have signed than must."""


class BadMetadata(TrustError):
    """Metadata that is damaged, forged, expired, or does not fit together."""


class EnrolmentError(FleetError):
    """Something about claims, certificates or the authority that signs them."""


class NoAuthority(EnrolmentError):
    """The fleet has no authority yet."""


class UnknownClaim(EnrolmentError):
    """No such claim was ever made."""


class NotWaiting(EnrolmentError):
    """Nobody of this name waits to be approved."""


class StorageError(FleetError):
    """The database or the repository cannot be read or written."""


class NewerDatabase(StorageError):
    """The database was made by a newer release."""


class BrokerUnavailable(FleetError):
    """No local broker could be started."""
