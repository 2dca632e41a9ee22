from __future__ import annotations

import random

from autoglm_edge_fleet.packer import Packer
from autoglm_edge_protocol.packing import unpack

BLOCK = 65_536
FILE = "ab" * 32


def _weights(seed: int) -> bytes:
    return bytes(random.Random(seed).choices(range(40), k=BLOCK))


def test_a_block_is_packed_once_and_again_when_its_bytes_have_changed() -> None:
    packer, data = Packer(), _weights(1)
    first = packer.pack(FILE, 0, data)
    assert first is not None
    assert packer.pack(FILE, 0, data) is first
    changed = _weights(2)
    second = packer.pack(FILE, 0, changed)
    assert second is not None
    assert unpack(second, BLOCK) == changed


def test_a_file_that_does_not_shrink_is_tried_now_and_then() -> None:
    packer, chance = Packer(), random.Random(3)
    for block in range(8):
        assert packer.pack(FILE, block * BLOCK, chance.randbytes(BLOCK)) is None
    outcomes = [packer.pack(FILE, block * BLOCK, _weights(block)) is not None for block in range(8, 40)]
    assert not outcomes[0]  # not worth a try yet
    assert True in outcomes
    assert all(outcomes[outcomes.index(True) :])  # one that shrinks, and all are tried again
