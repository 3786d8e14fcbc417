"""The settings, and where each of them came from.

This module holds the plain result, which both processes read. A flag beats an environment variable, which beats
the file, which beats the default.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple


class Address(NamedTuple):
    """A TCP address to listen on or to connect to."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return ``host:port``, with brackets around an IPv6 host."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Upstream(NamedTuple):
    """The server behind the tap, taken apart once."""

    url: str
    scheme: str  # http | https
    host: str
    port: int
    path: str  # "/" when the URL has none; only shown to people, never put into a request

    @property
    def authority(self) -> str:
        """The value a `Host` header has for this server."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Proxy:
    """``[proxy]``: the listener that carries the traffic. Times are seconds."""

    upstream: Upstream
    listen: Address = Address("127.0.0.1", 6278)
    connect_timeout: float = 5.0
    drain: float = 7.0
    host: str = "auto"  # auto | keep | upstream, or the value to send
    hosts: tuple[str, ...] = ()  # further Host values allowed on a loopback listener in framed mode
    client_address: Literal["peer", "x-forwarded-for"] = "peer"
    trusted: tuple[str, ...] = ()  # networks whose X-Forwarded-For is believed
    tls_ca: str | None = None  # PEM file that replaces the system's trust
    tls_verify: bool = True


@dataclass(frozen=True, slots=True)
class Admin:
    """``[admin]``: the desk."""

    listen: Address = Address("127.0.0.1", 6279)
    token: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """``[record]``: what is kept, where, and for how long. Times are seconds, sizes bytes."""

    store: str = "sqlite:///~/.local/state/mcp-tap/tap.db"
    bodies: Literal["none", "redacted", "full"] = "redacted"
    max_body: int = 64 * 1000
    keep: float | None = 30 * 86400.0  # None: for ever
    session_idle: float = 30 * 60.0
    queue: int = 64 * 1000 * 1000


@dataclass(frozen=True, slots=True)
class Redact:
    """``[redact]``: what is masked before anything is stored, shown or shipped."""

    headers: tuple[str, ...] = ("authorization", "cookie", "proxy-authorization", "x-api-key")
    keys: tuple[str, ...] = ()  # further words beside the built-in ones
    patterns: tuple[str, ...] = ()  # further regular expressions
    session_id: Literal["keep", "hash"] = "keep"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the two processes need to know."""

    proxy: Proxy
    admin: Admin = field(default_factory=Admin)
    record: Record = field(default_factory=Record)
    redact: Redact = field(default_factory=Redact)
    format: Literal["text", "json", "none"] = "text"  # of the live view
    debug: bool = False

    def to_json(self) -> bytes:
        """Return the settings as JSON, for the process that is started with them."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Settings:
        """Return the settings that ``to_json`` wrote."""
        raw: dict[str, Any] = json.loads(data)
        proxy, admin = raw["proxy"], raw["admin"]
        proxy |= {"upstream": Upstream(*proxy["upstream"]), "listen": Address(*proxy["listen"])}
        for name in ("hosts", "trusted"):
            proxy[name] = tuple(proxy[name])
        admin["listen"] = Address(*admin["listen"])
        redact: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw["redact"].items()}
        return cls(
            proxy=Proxy(**proxy),
            admin=Admin(**admin),
            record=Record(**raw["record"]),
            redact=Redact(**redact),
            format=raw["format"],
            debug=raw["debug"],
        )
