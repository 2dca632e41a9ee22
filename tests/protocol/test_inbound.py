"""What waits for a handler that is held up, while connections come and go."""

from __future__ import annotations

import asyncio

from autoglm_edge_protocol.inbound import MOST_CONTROL, Inbound, Message

IN_FLIGHT = 20
"""What a broker sends before the first acknowledgement."""


async def test_what_earlier_connections_brought_does_not_pile_up() -> None:
    held = asyncio.Event()
    handled: list[bytes] = []
    acknowledged: list[tuple[int, int]] = []

    async def handle(message: Message) -> None:
        await held.wait()
        handled.append(message.payload)

    inbound = Inbound(handle, lambda mid, connection: acknowledged.append((mid, connection)), block_queue=1)
    consuming = asyncio.create_task(inbound.consume_control())
    connections = 10 * MOST_CONTROL // IN_FLIGHT
    for connection in range(connections):
        for mid in range(IN_FLIGHT):  # the same once more, as none of it was acknowledged
            inbound.put_control(Message("t", b"%d" % mid, 1, retained=False), mid, connection)
        await asyncio.sleep(0)
    held.set()
    while (IN_FLIGHT - 1, connections - 1) not in acknowledged:
        await asyncio.sleep(0)
    consuming.cancel()
    await asyncio.gather(consuming, return_exceptions=True)
    assert len(handled) <= MOST_CONTROL + 1, "and the one that was being handled"
    assert handled[-IN_FLIGHT:] == [b"%d" % mid for mid in range(IN_FLIGHT)]
    assert [each for each in acknowledged if each[1] == connections - 1] == [
        (mid, connections - 1) for mid in range(IN_FLIGHT)
    ]
