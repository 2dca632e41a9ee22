"""A file that is being assembled, on a disk that has lost a block."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from autoglm_edge_agent.updates.partial import PartialFile
from autoglm_edge_protocol.chunks import ChunkedFile
from autoglm_edge_protocol.durable import Disk


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that is there and cannot be read")
def test_a_chunk_that_the_disk_does_not_give_back_is_not_held() -> None:
    with Path("/proc/self/mem").open("rb", buffering=0) as unreadable:
        with pytest.raises(OSError, match="Input/output error"):
            unreadable.read(1)
        assert not PartialFile(Disk(), unreadable, ChunkedFile.whole("ab" * 32, 1000)).holds(0)
