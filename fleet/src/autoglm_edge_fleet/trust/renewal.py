"""What the daemon does for trust: keeps signatures from expiring as far as its keys reach, and opens the director."""

from __future__ import annotations

import contextlib
from pathlib import Path

from autoglm_edge_fleet.errors import InUse
from autoglm_edge_fleet.keys import KeyRing
from autoglm_edge_fleet.locks import exclusive
from autoglm_edge_fleet.repository import REPOSITORY_FOLDER
from autoglm_edge_fleet.trust.catalogue import Shelf
from autoglm_edge_fleet.trust.custody import Custody, utc_now
from autoglm_edge_fleet.trust.director import Sealing, Withheld, open_director
from autoglm_edge_fleet.trust.lifetimes import ROOT
from autoglm_edge_fleet.trust.release import Refreshed
from autoglm_edge_fleet.trust.store import MetadataStore

PUBLISH_LOCK = "publish.lock"
_WAIT_S = 10.0


class Renewal:
    """For one fleet; `sealing` and `shelf` are as of the last `reload`."""

    def __init__(self, directory: Path, fleet: str, ring: KeyRing) -> None:
        self._directory = directory
        self._fleet = fleet
        self._ring = ring
        self._store = MetadataStore(directory / REPOSITORY_FOLDER)
        self._custody = Custody(directory / REPOSITORY_FOLDER, ring)
        self.shelf = Shelf(self._store)
        self.sealing: Sealing = Withheld("the metadata is not read yet")

    @property
    def is_founded(self) -> bool:
        """Whether the fleet has keys."""
        return self._custody.is_founded

    def open(self) -> None:
        """Begin. Raises NoTrust, WrongPassphrase, BadMetadata, StorageError, OSError."""
        self._store.newest_root()
        with contextlib.suppress(InUse):  # a long publication is no reason not to serve, and signs by itself
            self.renew()
        self.reload()

    def renew(self) -> Refreshed:
        """Sign again what is due. Raises BadMetadata, WrongPassphrase, InUse, StorageError, OSError."""
        now = utc_now()
        refusal = "signatures are not renewed while another process publishes; trying again"
        with exclusive(self._directory / PUBLISH_LOCK, refusal, _WAIT_S):
            done = self._custody.refresh(now)
        expires = self._store.root().signed.expires
        if not ROOT.is_due(expires, now):
            return done
        days = (expires - now).days
        warning = f"the root expires in {days} days: `autoglm-edge fleet keys rotate root --renew`, with its holders"
        return Refreshed(done.roles, (*done.problems, warning))

    def reload(self) -> bool:
        """Take in the metadata as it is now; returns whether it has changed. Raises TrustError."""
        if not self.shelf.reload():
            return False
        self.sealing = open_director(self._store.root().signed, self._ring, self._fleet, self.shelf.current)
        return True
