"""Who may ask: over TCP whoever has the token or a certificate, on the Unix socket whoever may open it."""

from __future__ import annotations

import http.client
import importlib.util
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.certificates import Authority
from tests.fakes.model_bundles import make_model_bundle
from tests.fakes.served_models import ServedModel

from autoglm_edge_agent.inference.access import guard_of, tls_of
from autoglm_edge_agent.inference.control import AccessOrder, ServingOrder
from autoglm_edge_agent.inference.errors import ModelUnusable
from autoglm_edge_agent.inference.messages import Request
from autoglm_edge_protocol.tls import verifying_context

TOKEN = "0123456789abcdef"
GRPC = importlib.util.find_spec("grpc") is not None


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


def test_without_a_token_all_may_ask() -> None:
    assert guard_of(AccessOrder()) is None
    assert tls_of(AccessOrder()) is None


AUTHORIZATIONS = {
    f"Bearer {TOKEN}": True,
    f"bearer   {TOKEN} ": True,
    "": False,
    "Bearer": False,
    "Bearer ": False,
    f"Bearer {TOKEN}x": False,
    f"Bearer {TOKEN[:-1]}": False,
    f"Basic {TOKEN}": False,
    TOKEN: False,
    "Bearer \xff\xfe": False,
}


@pytest.mark.parametrize("authorization", AUTHORIZATIONS)
def test_token(token_file: Path, authorization: str) -> None:
    guard = guard_of(AccessOrder(token_file=token_file))
    assert guard is not None
    denied = guard(Request("GET", "/v2", {"authorization": authorization}))
    assert (denied is None) is AUTHORIZATIONS[authorization]
    if denied is not None:
        assert denied.status == 401 and denied.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in str(denied.body)


def test_a_configuration_that_cannot_be_used_is_one_line(tmp_path: Path, token_file: Path) -> None:
    short = tmp_path / "short"
    short.write_text("secret")
    for token in (short, tmp_path / "none", tmp_path):
        with pytest.raises(ModelUnusable, match="token_file"):
            guard_of(AccessOrder(token_file=token))
    for certificate in (tmp_path / "none", token_file):
        with pytest.raises(ModelUnusable, match="certificates cannot be used"):
            tls_of(AccessOrder(cert_file=certificate, key_file=certificate))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[ServedModel]:
    """A worker that asks for both a token and a certificate, over every socket of TCP."""
    directory = tmp_path_factory.mktemp("served")
    (directory / "token").write_text(TOKEN)
    certificate, key = authority.give("device")
    access = AccessOrder(
        token_file=directory / "token", cert_file=certificate, key_file=key, client_ca_file=authority.ca_file
    )
    bundle = make_model_bundle(directory / "bundle", width=4)
    serving = ServingOrder(access=access)
    with ServedModel(bundle.directory, bundle.reference, directory, serving, grpc=GRPC) as served:
        yield served


def _context(authority: Authority, pair: tuple[Path, Path] | None) -> ssl.SSLContext:
    context = verifying_context(authority.ca_file)
    if pair is not None:
        context.load_cert_chain(*pair)
    return context


def _status(served: ServedModel, context: ssl.SSLContext, headers: dict[str, str]) -> int:
    connection = http.client.HTTPSConnection(served.address, context=context, timeout=20)
    try:
        connection.request("GET", "/v2/health/ready", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_certificate_and_the_token_are_needed(served: ServedModel, authority: Authority, tmp_path: Path) -> None:
    good = _context(authority, authority.give("client"))
    assert _status(served, good, {"Authorization": f"Bearer {TOKEN}"}) == 200
    assert _status(served, good, {}) == 401
    stranger = Authority(tmp_path, "stranger").give("client")
    for context in (_context(authority, None), _context(authority, stranger)):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            _status(served, context, {"Authorization": f"Bearer {TOKEN}"})
    with socket.create_connection(served.address.split(":"), 20) as plain:  # type: ignore[arg-type]
        plain.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP")
    assert _status(served, good, {"Authorization": f"Bearer {TOKEN}"}) == 200


def test_a_body_is_not_taken_from_whoever_may_not_ask(served: ServedModel, authority: Authority) -> None:
    connection = http.client.HTTPSConnection(
        served.address, context=_context(authority, authority.give("client")), timeout=20
    )
    connection.putrequest("POST", "/v2/models/linear/infer")
    connection.putheader("Content-Length", "10000000")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


def test_the_unix_socket_asks_for_nothing(served: ServedModel) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(20)
        connection.connect(str(served.unix_path))
        connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b""
        while piece := connection.recv(4096):
            data += piece
    assert json.loads(data.partition(b"\r\n\r\n")[2])["name"] == "autoglm-edge-agent"


@pytest.mark.skipif(not GRPC, reason="the extra is not installed")
def test_grpc_asks_for_the_same(served: ServedModel, authority: Authority) -> None:
    import grpc

    certificate, key = authority.give("client")
    root = authority.ca_file.read_bytes()
    metadata = (("authorization", f"Bearer {TOKEN}"),)

    def ask(credentials: object, given: tuple[tuple[str, str], ...]) -> object:
        with grpc.secure_channel(served.grpc_address, credentials) as channel:
            try:
                call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
                return call(b"", metadata=given, timeout=20)
            except grpc.RpcError as error:
                return error.code()

    ours = grpc.ssl_channel_credentials(root, key.read_bytes(), certificate.read_bytes())
    assert ask(ours, metadata) == b"\x08\x01"
    assert ask(ours, ()) is grpc.StatusCode.UNAUTHENTICATED
    assert ask(grpc.ssl_channel_credentials(root), metadata) is grpc.StatusCode.UNAVAILABLE
