"""A certificate for this machine's own names, made on the spot."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def make(directory: Path) -> Path:
    """Return a PEM file with a certificate for localhost and 127.0.0.1 that vouches for itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl program to make a certificate")
    path = directory / "both.pem"
    key = path.with_suffix(".key")
    command = [
        *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-keyout", str(key), "-out", str(path)),
    ]
    subprocess.run(command, check=True, capture_output=True)
    with path.open("a") as file:
        file.write(key.read_text())
    return path
