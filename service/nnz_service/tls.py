"""Certificate and key of the server, checked before anything is started."""

from __future__ import annotations

import ssl
from pathlib import Path

from nnz_service.errors import ServiceError


class TlsError(ServiceError):
    """The files of certificate, key or authorities cannot be used."""


def check_tls(cert: Path | None, key: Path | None, client_ca: Path | None) -> None:
    """Load the files as the web process will; no certificate and no key is fine.

    Args:
        cert: PEM file of the certificate chain, the server's own first.
        key: PEM file of its private key, not encrypted.
        client_ca: PEM file of authorities whose certificates callers must show.

    Raises:
        TlsError: saying which file, and what is wrong with it.
    """
    if cert is None and key is None:
        if client_ca is not None:
            raise TlsError("NNZ_TLS_CLIENT_CA needs NNZ_TLS_CERT and NNZ_TLS_KEY")
        return
    if cert is None or key is None:
        raise TlsError("NNZ_TLS_CERT and NNZ_TLS_KEY are set together or not at all")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _read(cert, "certificate")
    _read(key, "key")
    _load_pair(context, cert, key)
    if client_ca is not None:
        _read(client_ca, "file of authorities")
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            raise TlsError(f"{client_ca} holds no certificate in PEM form") from error


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    def encrypted() -> str:
        raise TlsError(f"the key {key} is encrypted; store it without a passphrase")

    try:
        context.load_cert_chain(cert, key, password=encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(f"the key {key} is not that of {cert}") from error
        raise TlsError(
            f"{cert} and {key} are no certificate and key in PEM form "
            f"({error.reason or 'unreadable'})"
        ) from error


def _read(path: Path, what: str) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise TlsError(f"cannot read the {what} {path}: {error.strerror}") from error
