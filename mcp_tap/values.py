"""How the values of settings are written: an address, a URL, a length of time, a size.

Each function that reads takes the text of one value and returns the value, or raises UsageError, which says what is
wrong and what to write instead. `written` is their inverse. The relay process imports this module for the two types
at its top, so whatever only reading needs is imported inside the functions that read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mcp_tap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


#: Bytes of a unix socket's name: the kernel's field is 104 on macOS, 108 on Linux, with the zero at its end.
LONGEST_SOCKET_NAME: Final = 103


class Address(NamedTuple):
    """A TCP address to listen on or to connect to, or the path of a unix socket."""

    host: str
    port: int
    socket: str = ""  # absolute path; then host and port say nothing

    def __str__(self) -> str:
        """Return ``host:port``, with brackets around an IPv6 host, or ``unix:`` and the path."""
        if self.socket:
            return f"unix:{self.socket}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def fixed(self) -> bool:
        """Whether only one listener can have it: port 0 is another one for each."""
        return bool(self.socket or self.port)


class Upstream(NamedTuple):
    """The server behind the tap, taken apart once."""

    url: str
    scheme: str  # http | https
    host: str
    port: int
    path: str  # "/" when the URL has none; only shown to people, never put into a request
    socket: str = ""  # absolute path of the unix socket that is connected to instead of host and port

    @property
    def where(self) -> str:
        """What is connected to, for people: scheme and authority, or the socket."""
        return f"unix:{self.socket}" if self.socket else f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """The value a `Host` header has for this server."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"


#: What stands for the server where none was named: enough to look at recordings, not to run.
NO_UPSTREAM: Final = Upstream("", "http", "", 80, "/")


def parse_upstream(text: str) -> Upstream:
    """Take the URL of an MCP server apart. Raises UsageError for anything but an http or https URL."""
    from urllib.parse import urlsplit

    def refused(why: str, hint: str) -> UsageError:
        return UsageError(f'"{shown}" {why}', hint=hint)

    scheme, separator, rest = text.partition("://")
    if scheme.lower() == "http+unix" or (scheme.lower() in ("http", "https") and rest.startswith("unix:/")):
        return _parse_unix_upstream(text, scheme.lower(), rest)
    authority = rest.split("/", 1)[0].split("?", 1)[0].split("#", 1)[0]
    userinfo = "@" in authority
    # A message may end up in a log: what could be a password is not repeated in it.
    shown = f"{scheme}://…@{rest.rpartition('@')[2]}" if userinfo else text.split("?", 1)[0]
    if not separator:
        shown = text.rpartition("@")[2].split("?", 1)[0]
        bare = shown.strip("/ ")
        example = bare if bare and " " not in bare and bare.isascii() else "localhost:9000/mcp"
        raise refused("is not the URL of an MCP server", f"write it with its scheme:  http://{example}")
    if scheme.lower() not in ("http", "https"):
        raise refused("is not an http or https URL", "the tap stands in front of servers that speak MCP over HTTP")
    if userinfo:
        raise refused("carries a user name or a password", "the client sends its own credentials; leave them out here")
    if not text.isascii() or any(char <= " " or char in '"<>\\^`{|}\x7f' for char in text):
        raise refused("holds characters that a URL cannot have", "escape them with %, and a host name as xn--…")
    if "?" in rest or "#" in rest:
        raise refused(
            "carries more than a path",
            "the tap adds nothing to requests; give what follows ? to the client, and leave # out",
        )
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise refused("has no host and port that can be read", "try:  http://localhost:9000/mcp") from None
    if not host or port == 0:
        raise refused("names no host or no port to connect to", "try:  http://localhost:9000/mcp")
    scheme = scheme.lower()
    return Upstream(text, scheme, host, port or {"http": 80, "https": 443}[scheme], parts.path or "/")


def _parse_unix_upstream(text: str, scheme: str, rest: str) -> Upstream:
    """Take ``http://unix:/run/server.sock:/mcp`` apart, as nginx writes it: the second colon ends the socket's name."""
    name, _, path = rest.removeprefix("unix:").partition(":")
    if scheme != "http" or not rest.startswith("unix:"):
        raise UsageError(
            f'"{text.split("?", 1)[0]}" is not the URL of an MCP server',
            hint="a unix socket is written like this:  http://unix:/run/server.sock:/mcp",
        )
    _check_socket_name(text, name)
    path = path or "/"
    if not path.startswith("/") or not path.isascii() or any(char <= " " or char in "?#\x7f" for char in path):
        raise UsageError(f'"{text.split("?", 1)[0]}" has more behind the socket than a path', hint="try:  …:/mcp")
    return Upstream(text, "http", "localhost", 80, path, name)


def _check_socket_name(text: str, name: str) -> None:
    if not name.startswith("/") or name.endswith("/") or "\0" in name:
        raise UsageError(f'"{text}" names no unix socket', hint="its path begins at the root:  unix:/run/mcp-tap.sock")
    if len(name.encode()) > LONGEST_SOCKET_NAME:
        raise UsageError(
            f'"{text}" is too long for the name of a unix socket', hint=f"{LONGEST_SOCKET_NAME} bytes are the most"
        )


def parse_address(text: str) -> Address:
    """Read ``host:port`` or ``unix:/path``. A port alone, with or without its colon, is one on 127.0.0.1.

    Port 0 lets the system choose. Raises UsageError.
    """
    if text.startswith("unix:"):
        name = text.removeprefix("unix:")
        _check_socket_name(text, name)
        return Address("", 0, name)
    host, colon, digits = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host or "127.0.0.1"
    if text.endswith("]") or (not bracketed and ":" in host):
        raise UsageError(f'"{text}" is not an address and a port', hint="try:  [::1]:6278")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) <= 65535):
        what = "its port is a number up to 65535" if colon else "it needs a port"
        raise UsageError(f'"{text}" is not an address and a port: {what}', hint="try:  127.0.0.1:6278")
    if host == "*":
        raise UsageError(f'"{text}" is not an address and a port', hint=f"every interface is  0.0.0.0:{digits}")
    if not (_is_ip(host, 6) if bracketed else _is_host(host)):
        raise UsageError(f'"{host}" is not a host to listen on', hint="try:  127.0.0.1:6278")
    return Address(host, int(digits))


def tcp_address(text: str) -> Address:
    """Read ``host:port`` or a port alone, for a listener that browsers have to reach. Raises UsageError."""
    if text.startswith("unix:"):
        raise UsageError(f'"{text}" is not an address and a port', hint="try:  127.0.0.1:6279")
    return parse_address(text)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on ``host``."""
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")


def _is_ip(text: str, version: int) -> bool:
    from ipaddress import ip_address

    try:
        return ip_address(text).version == version
    except ValueError:
        return False


def _is_host(text: str) -> bool:
    # A name of digits and dots alone would be an address, and must then be a right one.
    labels = text.split(".")
    if labels[-1].isdigit():
        return _is_ip(text, 4)
    return text.isascii() and all(label and label.replace("-", "").replace("_", "").isalnum() for label in labels)


_DURATIONS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES: Final = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3}
#: A hundred years: microseconds since the epoch stay far inside the 64 bits of SQLite.
_LONGEST: Final = 36500 * 86400.0


def _quantity(text: str, units: Mapping[str, float], kind: str, example: str) -> float:
    number = text.rstrip("".join({*"".join(units).lower(), *"".join(units).upper()}))
    unit = text[len(number) :].lower()
    digits = number.strip()
    whole, _, fraction = digits.partition(".")
    if len(digits) > 20 or not (whole + fraction).isdigit() or not digits.isascii() or digits[-1] == ".":
        raise UsageError(f'"{text}" is not {kind}', hint=f"try:  {example}")
    factor = {name.lower(): factor for name, factor in units.items()}.get(unit)
    if factor is None:
        raise UsageError(
            f'"{text}" has no unit' if not unit else f'"{text}" has no unit that is known here',
            hint=f"the units of {kind} are {', '.join(units)}; try:  {digits}{'s' if 's' in units else 'MB'}",
        )
    return float(digits) * factor


def duration(text: str) -> float:
    """Read seconds."""
    seconds = _quantity(text, _DURATIONS, "a length of time", "5s")
    if seconds > _LONGEST:
        raise UsageError(f'"{text}" is longer than a hundred years', hint="try:  36500d")
    return seconds


def positive_duration(text: str) -> float:
    """Read seconds that must pass for the setting to mean anything."""
    seconds = duration(text)
    if not seconds:
        raise UsageError(f'"{text}" is no time at all', hint="try:  5s")
    return seconds


def keep(text: str) -> float | None:
    """Read seconds, or None for ever."""
    return None if text == "forever" else positive_duration(text)


def size(least: int, most: int) -> Callable[[str], int]:
    """Return a reader of bytes within bounds."""

    def read(text: str) -> int:
        size = round(_quantity(text, _SIZES, "a size", "64kB"))
        if not least <= size <= most:
            raise UsageError(f'"{text}" is out of range', hint=f"between {written(least)} and {written(most)}")
        return size

    return read


def max_size(text: str) -> int | None:
    """Read bytes that something may have on a disk, or None where it may have any."""
    return None if text == "unlimited" else size(1000**2, 10**15)(text)


def count(text: str) -> int | None:
    """Read how many there may be of something, or None where there may be any number."""
    if text == "unlimited":
        return None
    if text.isdecimal() and text.isascii() and len(text) < 10 and int(text):
        return int(text)
    raise UsageError(f'"{text}" is not how many there may be', hint="try:  2000   or  unlimited")


def one_of(*words: str) -> Callable[[str], str]:
    """Return a reader of one of a few words."""

    def read(text: str) -> str:
        if text in words:
            return text
        raise UsageError(f'"{text}" is none of {", ".join(words)}', hint=nearest(text, words))

    return read


def switch(text: str) -> bool:
    """Read true or false."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    raise UsageError(f'"{text}" is neither true nor false', hint="try:  true")


def store(text: str) -> str:
    """Read the URL of a recording."""
    if text.startswith("sqlite:///") and len(text) > len("sqlite:///"):
        return text
    if text.startswith(("clickhouse:", "http:", "https:")):
        raise UsageError("a ClickHouse store is not available in this version", hint="try:  sqlite:///tap.db")
    if "://" in text or text.startswith("sqlite:"):
        raise UsageError(f'"{text}" is not the URL of a store', hint="try:  sqlite:///tap.db")
    raise UsageError(f'"{text}" is not the URL of a store', hint=f"try:  sqlite:///{text or 'tap.db'}")


def authority(text: str) -> str:
    """Read what a Host header may hold (RFC 9110 §7.2): whatever else got in here would become another header."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, "0"
    ip = host.startswith("[") and host.endswith("]") and _is_ip(host[1:-1], 6)
    if (ip or _is_host(host)) and port.isascii() and port.isdigit():
        return text
    raise UsageError(f'"{text}" is not a host, or a host and a port', hint="try:  example.com")


def word(text: str) -> str:
    """Read a name that people give to something."""
    if text.isprintable() and text.strip() == text and 0 < len(text) <= 40:
        return text
    raise UsageError(f'"{text}" is not a name', hint="up to 40 characters, without blanks around them")


def network(text: str) -> str:
    """Read an IP network, or one address."""
    from ipaddress import ip_network

    try:
        return str(ip_network(text))
    except ValueError as error:
        raise UsageError(f'"{text}" is not a network: {error}', hint="try:  10.0.0.0/8") from None


def header(text: str) -> str:
    """Read the name of a header, in lower case."""
    # RFC 9110 §5.6.2: a field name is a token.
    if text and text.isascii() and all(char.isalnum() or char in "!#$%&'*+-.^_`|~" for char in text):
        return text.lower()
    raise UsageError(f'"{text}" is not the name of a header', hint="try:  x-api-key")


def key(text: str) -> str:
    """Read the end of a JSON key: in lower case, without - and _."""
    word = text.lower().replace("-", "").replace("_", "")
    if len(word) >= 3 and word.isascii() and word.isalnum():
        return word
    raise UsageError(f'"{text}" is not the end of a key: three letters or digits at least', hint="try:  api_key")


def pattern(text: str) -> str:
    """Read a regular expression."""
    import re

    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(f'"{text}" is not a regular expression: {error}', hint="try:  acme_[0-9a-f]{32}") from None
    if pattern.search("") or pattern.fullmatch(" "):
        raise UsageError(f'"{text}" matches where nothing is', hint="try:  acme_[0-9a-f]{32}")
    return text


def token(text: str) -> str:
    """Read a token, or nothing."""
    # It travels in headers and cookies; what was refused is not repeated.
    if all("!" <= char <= "~" for char in text):
        return text
    raise UsageError("a token is made of printable ASCII without spaces", hint="try:  openssl rand -hex 16")


def anything(text: str) -> str:
    """Read whatever is not empty."""
    if not text:
        raise UsageError("the value is empty", hint="leave the setting out")
    return text


def written(value: Any) -> str:
    """Return a value as the file has it: a float is seconds, a whole number bytes."""
    match value:
        case bool():
            return str(value).lower()
        case None:
            return '"forever"'
        case float():
            unit = next((unit for unit in ("d", "h", "m", "s") if value and not value % _DURATIONS[unit]), "")
            return f'"{value / _DURATIONS[unit]:g}{unit}"' if unit else f'"{value * 1000:g}ms"' if value else '"0s"'
        case int():
            unit = next(unit for unit in ("GB", "MB", "kB", "B") if not value % _SIZES[unit])
            return f'"{value // _SIZES[unit]}{unit}"'
        case Upstream():
            return written(value.url)
        case Address():
            return written(str(value))
        case tuple():
            return f"[{', '.join(map(written, value))}]"
    return json.dumps(value, ensure_ascii=False)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint: the one that was probably meant, or all there are."""
    from difflib import get_close_matches

    known = list(known)
    near = get_close_matches(word, known, 1)
    return f'did you mean "{near[0]}"?' if near else f"known are {', '.join(known)}"
