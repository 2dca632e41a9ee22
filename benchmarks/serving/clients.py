"""Ways to ask: each a function that asks once and returns the answer, over a connection that stays open."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_agent.client import Client

Array = npt.NDArray[Any]
Ask = Callable[[], Array]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("device")
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def fast_path(path: Path, x: Array) -> Ask:
    """Tensors in place, as a camera would write them."""
    client = Client(path)
    slot = client.slot({"x": x.shape})
    slot.inputs["x"][...] = x

    def ask() -> Array:
        slot.run()
        return slot.outputs["y"]

    return ask


def fast_path_copying(path: Path, x: Array) -> Ask:
    """The convenient call, which copies in and out."""
    client = Client(path)
    return lambda: client.infer({"x": x})["y"]


def binary(path: Path, x: Array, model: str) -> Ask:
    """Binary tensors over plain HTTP on a raw Unix socket, so that the server is measured and not a client library."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    parameters = {"binary_data_size": x.nbytes}
    header = json.dumps(
        {
            "inputs": [{"name": "x", "shape": list(x.shape), "datatype": "FP32", "parameters": parameters}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: device\r\nContent-Length: {len(header) + x.nbytes}\r\n"
        f"Inference-Header-Content-Length: {len(header)}\r\n\r\n"
    ).encode()
    data = x.tobytes()

    def ask() -> Array:
        connection.sendall(b"".join((head, header, data)))
        answer = connection.recv(65536)
        head_end = answer.index(b"\r\n\r\n") + 4
        values = dict(line.split(b": ", 1) for line in answer[: head_end - 4].split(b"\r\n")[1:])
        length, json_bytes = int(values[b"content-length"]), int(values[b"inference-header-content-length"])
        while len(answer) < head_end + length:
            answer += connection.recv(65536)
        return np.frombuffer(answer, np.float32, offset=head_end + json_bytes)

    return ask


def rest_json(connection: http.client.HTTPConnection, x: Array, model: str) -> Ask:
    """JSON tensors, as any client can write them; the text is made before, so that the server is measured."""
    headers = {"Content-Type": "application/json"}
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()

    def ask() -> Array:
        try:
            connection.request("POST", f"/v2/models/{model}/infer", body, headers)
            answer = json.loads(connection.getresponse().read())
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            # Between two turns the server may have closed a connection that was idle.
            connection.close()
            connection.request("POST", f"/v2/models/{model}/infer", body, headers)
            answer = json.loads(connection.getresponse().read())
        return np.asarray(answer["outputs"][0]["data"], np.float32)

    return ask
