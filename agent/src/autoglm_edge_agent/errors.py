"""What can go wrong on a device.

AgentError
 |- ConfigurationError    the configuration file: the owner's to mend
 |- StateError            the state directory is in use or unreadable
 |   `- DamagedIdentity   who this device is cannot be read any more
 |- Refusal               a deployment that this device will not run; final for its generation
 |- Denied                the fleet will not have this board; asking again changes nothing
 |- Hindrance             a deployment cannot go on now (disk full, fleet silent); tried again by itself
 `- WorkerError           a worker process failed, hung or could not be started
"""

from __future__ import annotations

import errno

from autoglm_edge_protocol.deployment import Reason


class AgentError(Exception):
    """Base of this distribution's errors. `str(error)` is one line for a user."""


class ConfigurationError(AgentError):
    """The configuration file is missing, unreadable or wrong."""


class StateError(AgentError):
    """The state directory cannot be used."""


class DamagedIdentity(StateError):
    """What was known of who this device is cannot be read any more."""


class _Reasoned(AgentError):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.reason = Reason(code=code, message=message[:2000])


class Refusal(_Reasoned):
    """This device will not run what it was asked to run; only a new generation changes that."""


class Denied(_Reasoned):
    """The fleet will not have this board as it asks; only its owner changes that."""


class Hindrance(_Reasoned):
    """Something stands in the way that may go away by itself."""


class WorkerError(_Reasoned):
    """A worker process did not do what it was started for."""


def hindrance_of(error: OSError) -> Hindrance:
    """Return the hindrance that an error of the file system is: a full or failing disk may be well again later."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Hindrance("disk-full", f"the disk is full ({error}); free some space, the update then goes on")
    return Hindrance("disk-error", f"the disk reports an error: {error}")
