"""Certificates for tests, made by the openssl command."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Pair:
    """PEM files of a certificate and its key."""

    cert: Path
    key: Path


def self_signed(folder: Path, name: str = "server", host: str = "127.0.0.1") -> Pair:
    """Make a certificate for one address that vouches for itself."""
    kind = "IP" if host[0].isdigit() else "DNS"
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    _openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "2", "-subj", f"/CN={name}",
        "-addext", f"subjectAltName={kind}:{host}",
        "-keyout", str(pair.key), "-out", str(pair.cert),
    )  # fmt: skip
    return pair


def signed(folder: Path, by: Pair, name: str) -> Pair:
    """Make a certificate that another one vouches for."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    request = folder / f"{name}.csr"
    _openssl(
        "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-subj", f"/CN={name}", "-keyout", str(pair.key), "-out", str(request),
    )  # fmt: skip
    _openssl(
        "x509", "-req", "-days", "2", "-in", str(request), "-CA", str(by.cert),
        "-CAkey", str(by.key), "-CAcreateserial", "-out", str(pair.cert),
    )  # fmt: skip
    return pair


def encrypted(pair: Pair) -> Path:
    """Store the key of a pair behind a passphrase."""
    path = pair.key.with_suffix(".locked")
    _openssl(
        "ec", "-aes256", "-passout", "pass:x", "-in", str(pair.key), "-out", str(path)
    )
    return path


def _openssl(*words: str) -> None:
    command = shutil.which("openssl")
    if command is None:
        if os.environ.get("NNZ_REQUIRE"):
            pytest.fail("NNZ_REQUIRE is set, but the openssl command is not here")
        pytest.skip("the openssl command is not here to make certificates")
    subprocess.run([command, *words], check=True, capture_output=True)
