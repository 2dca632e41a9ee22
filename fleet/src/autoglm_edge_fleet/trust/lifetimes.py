"""How long signatures last, and when they are renewed. Pure.

An expiry bounds for how long someone who holds back the news (the broker, a mirror, a stolen USB stick) can keep a
device from noticing. It never stops what runs, and a board that was off for a year needs no unexpired old metadata: TUF
looks at the expiry of the newest only, and follows the chain of roots through expired ones. So what counts is how long
the *fleet's side* may be away, and how long a copy on a stick must last:

- timestamp, 7 days, renewed each day: a fleet that is down over a long weekend goes on, a stick lasts a week.
- snapshot, 30 days, renewed at half: its key is as much at hand as the timestamp's, but changes only with a release.
- targets and models, 180 days, renewed at 60 left: their key may be in a drawer, and its holder on leave.
- root, 365 days: several people must meet to renew it. There is a warning at 60 days left.
- a desired state, 90 days from its last renewal: until then a device that comes back may still take it in.
- a command, a week at most: it is meant for now, and a device must remember its id until then.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Lifetime:
    """Of one role's metadata."""

    days: int
    renewed_at_days_left: int

    def expiry(self, now: datetime) -> datetime:
        """Return when what is signed now expires; whole seconds, as TUF writes them."""
        return (now + timedelta(days=self.days)).replace(microsecond=0)

    def is_due(self, expires: datetime, now: datetime) -> bool:
        """Tell whether it is time to sign again."""
        return expires - now <= timedelta(days=self.renewed_at_days_left)


ROOT = Lifetime(365, 60)
TARGETS = Lifetime(180, 60)
SNAPSHOT = Lifetime(30, 15)
TIMESTAMP = Lifetime(7, 6)
DESIRED_S = 90 * 86_400.0
COMMAND_S = 7 * 86_400.0


def lifetime_of(role: str) -> Lifetime:
    """Return that of a role; models are as targets."""
    return {"root": ROOT, "snapshot": SNAPSHOT, "timestamp": TIMESTAMP}.get(role, TARGETS)
