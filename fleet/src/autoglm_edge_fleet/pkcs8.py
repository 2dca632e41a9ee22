"""Private keys at rest: PKCS#8 in PEM, encrypted with AES-256 under a key that scrypt makes of a passphrase.

`cryptography` reads this form and writes only one with 2,048 rounds of PBKDF2, which a stolen disk would not withstand
for long; so the few bytes of DER around the ciphertext are written here. OpenSSL writes the same with
`openssl pkcs8 -topk8 -scrypt`. Sources: RFC 5958 (EncryptedPrivateKeyInfo), RFC 8018 (PBES2), RFC 7914 (scrypt).
"""

from __future__ import annotations

import base64
import os

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

_COST, _BLOCK, _PARALLEL = 2**14, 8, 5  # 16 MiB, five times over, for each guess; OpenSSL reads no file that takes 32
_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES256_CBC = bytes.fromhex("060960864801650304012a")


def to_pem(key: PrivateKeyTypes, passphrase: str | None) -> bytes:
    """Return the key as a PEM file, encrypted unless `passphrase` is None."""
    if passphrase is None:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    der = _encrypted(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), passphrase.encode())
    text = base64.b64encode(der).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    label = "ENCRYPTED PRIVATE KEY"
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def is_encrypted(pem: bytes) -> bool:
    """Tell whether a passphrase is needed."""
    return b"ENCRYPTED" in pem


def from_pem(pem: bytes, passphrase: str | None) -> PrivateKeyTypes:
    """Read a key. Raises ValueError when it is no key, or not one that this passphrase opens."""
    try:
        return load_pem_private_key(pem, passphrase.encode() if passphrase and is_encrypted(pem) else None)
    except (TypeError, UnsupportedAlgorithm, InternalError) as error:
        # The last is what becomes of a key of one kind under the name of another.
        raise ValueError(str(error).splitlines()[0]) from None


def _encrypted(plain: bytes, passphrase: bytes) -> bytes:
    salt, start = os.urandom(16), os.urandom(16)
    key = Scrypt(salt, 32, _COST, _BLOCK, _PARALLEL).derive(passphrase)
    padder, cipher = PKCS7(128).padder(), Cipher(AES256(key), CBC(start)).encryptor()
    secret = cipher.update(padder.update(plain) + padder.finalize()) + cipher.finalize()
    costs = b"".join(_integer(value) for value in (_COST, _BLOCK, _PARALLEL, 32))
    derivation = _sequence(_SCRYPT, _sequence(_octets(salt), costs))
    scheme = _sequence(_AES256_CBC, _octets(start))
    return _sequence(_sequence(_PBES2, _sequence(derivation, scheme)), _octets(secret))


def _der(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size < 128:
        return bytes([tag, size]) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 128 + len(length)]) + length + value


def _sequence(*parts: bytes) -> bytes:
    return _der(0x30, b"".join(parts))


def _octets(value: bytes) -> bytes:
    return _der(0x04, value)


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))
