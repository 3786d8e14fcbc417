"""The settings, and where each of them came from.

First the plain result, which both processes read; then the one table of settings, from which the keys of the file,
the names of the environment variables, the example file and the documentation follow; then loading. A flag beats an
environment variable, which beats the file, which beats the default.

The relay process imports this module, so whatever only loading needs is imported inside the functions that load.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from mcp_tap import values
from mcp_tap.errors import UsageError
from mcp_tap.values import NO_UPSTREAM, Address, Upstream, is_loopback, parse_address, parse_upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = [
    "NO_UPSTREAM", "SETTINGS", "UPSTREAM_SETTINGS", "Address", "Admin", "Loaded", "Proxy", "Record", "Redact",
    "Setting", "Settings", "Upstream", "is_loopback", "load", "parse_address", "parse_upstream",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Proxy:
    """One server and the listener in front of it: ``[proxy]``, or one ``[[upstream]]``. Times are seconds."""

    upstream: Upstream
    listen: Address = Address("127.0.0.1", 6278)
    connect_timeout: float = 5.0
    drain: float = 7.0
    max_connections: int | None = None  # of all listeners together; None: as many as open files allow
    host: str = "auto"  # auto | keep | upstream, or the value to send
    hosts: tuple[str, ...] = ()  # further Host values allowed on a loopback listener in framed mode
    client_address: Literal["peer", "x-forwarded-for"] = "peer"
    trusted: tuple[str, ...] = ()  # networks whose X-Forwarded-For is believed
    tls_ca: str | None = None  # PEM file that replaces the system's trust
    tls_verify: bool = True
    tls_cert: str | None = None  # PEM file: the listener speaks TLS
    tls_key: str | None = None  # PEM file; where there is none the key is in tls_cert
    name: str = ""  # of an [[upstream]], for people

    @property
    def url(self) -> str:
        """What a client is given in place of the server's URL."""
        scheme = "https" if self.tls_cert else "http"
        return f"{scheme}://{self.listen}{':' if self.listen.socket else ''}{self.upstream.path}"


@dataclass(frozen=True, slots=True)
class Admin:
    """``[admin]``: the desk."""

    listen: Address = Address("127.0.0.1", 6279)
    token: str = ""
    hosts: tuple[str, ...] = ()  # further Host values under which the desk answers

    @property
    def url(self) -> str:
        """What a person opens: with the token, where there is one."""
        if not self.token:
            return f"http://{self.listen}"
        from urllib.parse import quote

        return f"http://{self.listen}/?token={quote(self.token, safe='')}"


@dataclass(frozen=True, slots=True)
class Record:
    """``[record]``: what is kept, where, and for how long. Times are seconds, sizes bytes."""

    store: str = "sqlite:///~/.local/state/mcp-tap/tap.db"
    bodies: Literal["none", "redacted", "full"] = "redacted"
    max_body: int = 64 * 1000
    keep: float | None = 30 * 86400.0  # None: for ever
    max_size: int | None = None  # of the file; None: any
    session_idle: float = 30 * 60.0
    queue: int = 64 * 1000 * 1000


@dataclass(frozen=True, slots=True)
class Redact:
    """``[redact]``: what is masked before anything is stored, shown or shipped; each list adds to a built-in one."""

    headers: tuple[str, ...] = ()  # lower case; their values are credentials wherever they recur
    keys: tuple[str, ...] = ()  # ends of JSON keys, lower case without - and _
    patterns: tuple[str, ...] = ()  # regular expressions
    session_id: Literal["keep", "hash"] = "keep"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the two processes need to know. What concerns the whole process (drain, trusted) is in ``proxy``."""

    proxy: Proxy  # the first
    admin: Admin = field(default_factory=Admin)
    record: Record = field(default_factory=Record)
    redact: Redact = field(default_factory=Redact)
    format: Literal["text", "json", "none"] = "text"  # of the live view
    debug: bool = False
    others: tuple[Proxy, ...] = ()  # the further ones

    @property
    def proxies(self) -> tuple[Proxy, ...]:
        """Every server with its listener."""
        return (self.proxy, *self.others)

    def to_json(self) -> bytes:
        """Return the settings as JSON, for the process that is started with them."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Settings:
        """Return the settings that ``to_json`` wrote."""
        raw: dict[str, Any] = json.loads(data)
        admin = raw["admin"]
        admin |= {"listen": Address(*admin["listen"]), "hosts": tuple(admin["hosts"])}
        redact: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw["redact"].items()}
        return cls(
            proxy=_proxy_from_json(raw["proxy"]),
            others=tuple(map(_proxy_from_json, raw["others"])),
            admin=Admin(**admin),
            record=Record(**raw["record"]),
            redact=Redact(**redact),
            format=raw["format"],
            debug=raw["debug"],
        )

    def to_file(self) -> int:
        """Return the descriptor of a new file with the settings, for processes that are started with them.

        The file has no name and, where the system can do that, is no more than memory: settings may hold a token.
        """
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("settings")
        else:
            import tempfile

            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.write(fd, self.to_json())
        return fd

    @classmethod
    def from_file(cls, fd: int) -> Settings:
        """Return the settings in such a file, wherever another process has left its position."""
        return cls.from_json(os.pread(fd, os.fstat(fd).st_size, 0))


def _proxy_from_json(raw: dict[str, Any]) -> Proxy:
    raw |= {"upstream": Upstream(*raw["upstream"]), "listen": Address(*raw["listen"])}
    raw |= {name: tuple(raw[name]) for name in ("hosts", "trusted")}
    return Proxy(**raw)


# ------------------------------------------------------------------------------------------------ the table of settings


class Setting(NamedTuple):
    """One setting. Its default is that of the dataclass field it fills."""

    name: str  # section.key; in the environment MCP_TAP_SECTION_KEY
    read: Callable[[str], Any]  # the text of one value -> the value
    help: str
    many: bool = False  # a list: in the environment and in flags separated by commas
    short: str = ""  # a second name in the environment
    flag: str = ""
    sample: str = ""  # shown, commented out, by the example file where the default cannot be written

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return "MCP_TAP_" + self.name.replace(".", "_").upper()

    @property
    def default(self) -> Any:
        """What holds where nothing is said."""
        if self.name in ("proxy.upstream", "upstream.url"):
            return NO_UPSTREAM
        section, _, key = self.name.rpartition(".")
        return next(entry.default for entry in fields(_SECTIONS.get(section, Proxy)) if entry.name == key)


_SECTIONS: Final[dict[str, Any]] = {"": Settings, "proxy": Proxy, "admin": Admin, "record": Record, "redact": Redact}

SETTINGS: Final = (
    Setting(
        "format", values.one_of("text", "json", "none"), "the live view: text, json (lines) or none", flag="--format"
    ),
    Setting("debug", values.switch, "show where an error comes from", flag="--debug"),
    Setting(
        "proxy.upstream",
        parse_upstream,
        "the MCP server; clients keep its path and change only host and port",
        short="MCP_TAP_UPSTREAM",
        flag="URL",
    ),
    Setting(
        "proxy.listen",
        parse_address,
        "where clients connect; port 0: any free one; a unix socket is unix:/path",
        flag="--listen",
    ),
    Setting(
        "proxy.connect_timeout", values.positive_duration, "for connecting to the server; open streams are never cut"
    ),
    Setting("proxy.drain", values.duration, "what calls in flight get at SIGTERM; Docker kills after 10s"),
    Setting(
        "proxy.max_connections",
        values.count,
        "at a time; further clients wait as for a busy server; unlimited is as many as open files allow",
        sample="2000",
    ),
    Setting(
        "proxy.host",
        lambda text: text if text in ("auto", "keep", "upstream") else values.authority(text),
        "Host sent to the server: keep, upstream, auto (keep on loopback, else upstream) or a value",
    ),
    Setting("proxy.hosts", values.authority, "further Host values that a loopback listener lets pass", many=True),
    Setting(
        "proxy.client_address",
        values.one_of("peer", "x-forwarded-for"),
        "where a client's address is taken from: peer or x-forwarded-for",
    ),
    Setting("proxy.trusted", values.network, "networks whose X-Forwarded-For is believed", many=True),
    Setting(
        "proxy.tls_ca",
        values.anything,
        "PEM file of certificates trusted instead of the system's",
        sample="/etc/ssl/our-ca.pem",
    ),
    Setting("proxy.tls_verify", values.switch, "false: accept any certificate of the server"),
    Setting(
        "proxy.tls_cert",
        values.anything,
        "PEM file of the listener's own certificate; with one, clients use https",
        sample="/etc/ssl/tap.pem",
    ),
    Setting("proxy.tls_key", values.anything, "PEM file of its key, unless tls_cert has it", sample="/etc/ssl/tap.key"),
    Setting("admin.listen", values.tcp_address, "where the desk listens: pages, API, health", flag="--admin-listen"),
    Setting(
        "admin.token",
        values.token,
        "asked of everyone who opens the desk; a must when admin.listen is not loopback",
        short="MCP_TAP_TOKEN",
    ),
    Setting("admin.hosts", values.authority, "further Host values under which the desk answers", many=True),
    Setting(
        "record.store",
        values.store,
        "the recording; below $XDG_STATE_HOME where that is set",
        short="MCP_TAP_STORE",
        flag="--store",
    ),
    Setting("record.bodies", values.one_of("none", "redacted", "full"), "none, redacted or full", flag="--bodies"),
    Setting("record.max_body", values.size(1, 8 * 1000**2), "longer ones are cut in the record, never in the traffic"),
    Setting("record.keep", values.keep, "how long; forever never deletes"),
    Setting(
        "record.max_size", values.max_size, "of the file; beyond it the oldest go; unlimited is any size", sample="2GB"
    ),
    Setting("record.session_idle", values.positive_duration, "a session without traffic for so long has ended"),
    Setting("record.queue", values.size(1000**2, 16 * 1000**3), "when full, traffic goes on and the loss is counted"),
    Setting("redact.headers", values.header, "further headers that carry credentials", many=True),
    Setting("redact.keys", values.key, "further ends of JSON keys whose values are masked", many=True),
    Setting("redact.patterns", values.pattern, "further regular expressions for values to mask", many=True),
    Setting(
        "redact.session_id", values.one_of("keep", "hash"), "Mcp-Session-Id as sent (keep) or as a keyed hash (hash)"
    ),
)

_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}

#: What an ``[[upstream]]`` may say; what it leaves out is as in ``[proxy]``. Its ``url`` and ``listen`` it must say.
UPSTREAM_SETTINGS: Final = (
    Setting("upstream.name", values.word, "what it is called where it is shown"),
    _BY_NAME["proxy.upstream"]._replace(name="upstream.url", short="", flag=""),
    *(
        _BY_NAME[f"proxy.{key}"]._replace(name=f"upstream.{key}", short="", flag="")
        for key in ("listen", "host", "hosts", "tls_ca", "tls_verify", "tls_cert", "tls_key")
    ),
)

#: Words of later versions: a file that has them was not written for this one.
_LATER: Final = ("gateway", "provider", "template", "export")


# -------------------------------------------------------------------------------------------------------------- loading


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and where each of them came from.

    ``origins`` maps each dotted name to ``default``, ``FILE line N``, ``environment NAME``, ``flag --listen`` or
    ``argument URL``; those of the second ``[[upstream]]`` begin with ``upstream.2.``. Without a server to stand in
    front of, ``settings.proxy.upstream`` is ``NO_UPSTREAM``: enough to look at a recording.
    """

    settings: Settings
    origins: dict[str, str]
    values: dict[str, Any]  # by the same names, as they were given

    def to_run(self) -> Settings:
        """Return the settings for recording. Raises UsageError when there is no server to stand in front of."""
        if self.settings.proxy.upstream == NO_UPSTREAM:
            raise UsageError(
                "which MCP server?",
                hint="try:  mcp-tap http://localhost:9000/mcp\nor set  MCP_TAP_UPSTREAM  or  [proxy] upstream",
            )
        return self.settings


def load(flags: Mapping[str, str], *, file: str | None, env: Mapping[str, str], cwd: Path) -> Loaded:
    """Return the settings of one start.

    ``flags`` holds the text of each flag that was given by the dotted name of its setting, ``file`` the argument of
    ``-c``. Raises UsageError for whatever cannot be meant: unknown keys, malformed values, a desk open to everyone.
    """
    chosen: dict[str, Any] = {setting.name: setting.default for setting in SETTINGS}
    chosen["record.store"] = _default_store(env)
    origins = dict.fromkeys(chosen, "default")
    read = _File(_find(file, env, cwd), env)
    for source in (read.settings(), _from_environment(env), _from_flags(flags)):
        for setting, value, origin in source:
            chosen[setting.name] = value
            origins[setting.name] = origin
    sections: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    for name, value in chosen.items():
        section, _, key = name.rpartition(".")
        sections[section][key] = value
    top = sections.pop("")
    settings = Settings(**top, **{section: _SECTIONS[section](**inner) for section, inner in sections.items()})
    tables = list(read.upstreams())
    if "proxy.upstream" not in flags:  # who names one server on the command line wants that one
        settings = _with_upstreams(settings, origins, tables)
        for number, table in enumerate(tables, 1):
            for setting, value, origin in table:
                name = setting.name.replace(".", f".{number}.")
                chosen[name], origins[name] = value, origin
    _check(settings)
    return Loaded(settings, origins, chosen)


def _with_upstreams(
    settings: Settings, origins: Mapping[str, str], tables: list[list[tuple[Setting, Any, str]]]
) -> Settings:
    """Add the ``[[upstream]]`` tables to what ``[proxy]`` has, which is the first server where it names one."""
    proxies: list[Proxy] = []
    for table in tables:
        where = table[0][2]
        given = {setting.name.partition(".")[2]: value for setting, value, _ in table}
        for key, example in (("url", "http://localhost:9000/mcp"), ("listen", "127.0.0.1:6281")):
            if key not in given:
                raise UsageError(f"{where}: this [[upstream]] has no {key}", hint=f'try:  {key} = "{example}"')
        if given.get("name") in {proxy.name for proxy in proxies}:
            raise UsageError(f'{where}: two [[upstream]] are named "{given["name"]}"', hint="give each its own name")
        if "tls_cert" in given:
            given.setdefault("tls_key", None)  # the key of another certificate fits none
        proxies.append(replace(settings.proxy, upstream=given.pop("url"), **given))
    if proxies and settings.proxy.upstream == NO_UPSTREAM:
        if origins["proxy.listen"] != "default":
            raise UsageError(
                f"{origins['proxy.listen']}: proxy.listen is for the server of proxy.upstream, and there is none",
                hint="each [[upstream]] has a listen of its own",
            )
        return replace(settings, proxy=proxies[0], others=tuple(proxies[1:]))
    return replace(settings, others=tuple(proxies))


def _check(settings: Settings) -> None:
    admin, proxy = settings.admin, settings.proxy
    if not admin.token and not is_loopback(admin.listen.host):
        raise UsageError(
            f"refusing to listen on {admin.listen} without a token",
            hint="recordings contain tool inputs and outputs\n"
            f"try:  MCP_TAP_TOKEN=$(openssl rand -hex 16) mcp-tap …   or  --admin-listen 127.0.0.1:{admin.listen.port}",
        )
    taken = {admin.listen: "admin.listen"}
    for each in settings.proxies:
        what = f"listen of {each.name or each.upstream.url}" if settings.others else "proxy.listen"
        other = taken.setdefault(each.listen, what)
        if other is not what and each.listen.fixed:
            hint = "--admin-listen 127.0.0.1:0" if other == "admin.listen" else 'listen = "127.0.0.1:0"'
            raise UsageError(f"{what} and {other} are both {each.listen}", hint=f"try:  {hint}")
        if each.tls_key and not each.tls_cert:
            raise UsageError("tls_key is given without tls_cert", hint="name the certificate's file as well")
    if proxy.client_address == "x-forwarded-for" and not proxy.trusted:
        raise UsageError(
            'proxy.client_address = "x-forwarded-for" believes nobody without networks in proxy.trusted',
            hint='try:  trusted = ["10.0.0.0/8"]',
        )


def _default_store(env: Mapping[str, str]) -> str:
    # The XDG specification: a relative path is to be ignored.
    state = env.get("XDG_STATE_HOME", "")
    return f"sqlite:///{state.rstrip('/')}/mcp-tap/tap.db" if state.startswith("/") else Record().store


def _find(file: str | None, env: Mapping[str, str], cwd: Path) -> tuple[str, Path] | None:
    """Return the file to read, with the name to call it by: the one that was named, else the first that exists."""
    named = (file, "-c") if file is not None else (env.get("MCP_TAP_CONFIG", ""), "MCP_TAP_CONFIG")
    if named[0]:
        path = cwd / _expanded(named[0], env)
        if not path.is_file():
            raise UsageError(f"{named[1]}: there is no file {named[0]}", hint="try:  mcp-tap config --example")
        return named[0], path
    config = env.get("XDG_CONFIG_HOME", "")
    home = config if config.startswith("/") else _expanded("~/.config", env)
    for name in ("mcp-tap.toml", f"{home}/mcp-tap/config.toml"):
        if (cwd / name).is_file():
            return name, cwd / name
    return None


def _expanded(path: str, env: Mapping[str, str]) -> str:
    home = env.get("HOME", "")
    return home + path[1:] if home and (path == "~" or path.startswith("~/")) else path


def _from_flags(flags: Mapping[str, str]) -> Iterator[tuple[Setting, Any, str]]:
    for name, text in flags.items():
        setting = _BY_NAME[name]
        yield setting, _from_text(setting, text, setting.flag or name), f"{_kind_of(setting.flag)} {setting.flag}"


def _kind_of(flag: str) -> str:
    return "flag" if flag.startswith("-") else "argument"


def _from_environment(env: Mapping[str, str]) -> Iterator[tuple[Setting, Any, str]]:
    by_variable = {setting.variable: setting for setting in SETTINGS}
    by_variable |= {setting.short: setting for setting in SETTINGS if setting.short}
    seen: dict[str, str] = {}
    for variable in sorted(env):
        if not variable.startswith("MCP_TAP_") or variable == "MCP_TAP_CONFIG" or not env[variable]:
            continue  # an empty variable is one that was not given: compose files have no other way to say so
        setting = by_variable.get(variable)
        if setting is None:
            if _is_service_link(variable):
                continue
            raise UsageError(f"unknown environment variable {variable}", hint=values.nearest(variable, by_variable))
        other = seen.setdefault(setting.name, variable)
        if env[other] != env[variable]:
            raise UsageError(f"{other} and {variable} are the same setting and differ", hint=f"unset {other}")
        yield setting, _from_text(setting, env[variable], variable), f"environment {variable}"


def _is_service_link(variable: str) -> bool:
    """Whether Kubernetes made this variable: it does so in each pod for a Service that is called mcp-tap."""
    import re

    link = r"MCP_TAP_(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
    return re.fullmatch(link, variable) is not None


def _from_text(setting: Setting, text: str, where: str) -> Any:
    try:
        if not setting.many:
            return setting.read(text)
        return tuple(dict.fromkeys(setting.read(part.strip()) for part in text.split(",") if part.strip()))
    except UsageError as error:
        raise UsageError(f"{where}: {error}", hint=error.hint) from None


class _File:
    """The settings in a file, or none where there is no file."""

    def __init__(self, found: tuple[str, Path] | None, env: Mapping[str, str]) -> None:
        self._env = env
        self._name, self._text = "", ""
        self._raw: dict[str, Any] = {}
        if found is not None:
            self._name, path = found
            self._text, self._raw = _parsed(self._name, path)

    def settings(self) -> Iterator[tuple[Setting, Any, str]]:
        """Yield each setting that is given, its value, and where."""
        for section, inner in self._raw.items():
            if section == "upstream" and isinstance(inner, list):
                continue
            members = inner.items() if section in _SECTIONS and isinstance(inner, dict) else [("", inner)]
            for key, value in members:
                dotted = f"{section}.{key}" if key else section
                where = f"{self._name} line {_line(self._text, section, key)}"
                setting = _BY_NAME.get(dotted)
                if setting is None or dotted in _SECTIONS:
                    raise _unknown(where, section, key, inner)
                yield setting, _from_toml(setting, value, where, self._env), where

    def upstreams(self) -> Iterator[list[tuple[Setting, Any, str]]]:
        """Yield for each ``[[upstream]]`` what `settings` yields for the rest, at least a pair without a setting."""
        tables = self._raw.get("upstream", [])
        known = {setting.name: setting for setting in UPSTREAM_SETTINGS}
        for number, table in enumerate(tables if isinstance(tables, list) else ()):
            found = []
            for key, value in table.items() if isinstance(table, dict) else [("", table)]:
                where = f"{self._name} line {_line(self._text, 'upstream', key, number)}"
                setting = known.get(f"upstream.{key}")
                if setting is None:
                    raise _unknown(where, "upstream", key, table)
                found.append((setting, _from_toml(setting, value, where, self._env), where))
            if not found:
                where = f"{self._name} line {_line(self._text, 'upstream', '', number)}"
                raise UsageError(f"{where}: this [[upstream]] is empty", hint="it takes a url and a listen")
            yield found


def _parsed(name: str, path: Path) -> tuple[str, dict[str, Any]]:
    import tomllib

    try:
        text = path.read_text(encoding="utf-8-sig")
        return text, tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}", hint=f"try:  ls -l {name}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not UTF-8", hint="TOML files are UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        message, _, place = str(error).partition(" (at ")
        where = f"{name} {place.partition(',')[0]}" if place.startswith("line ") else name
        hint = 'strings stand in quotes, as in  listen = "127.0.0.1:6278"'
        raise UsageError(f"{where}: {message[:1].lower()}{message[1:]}", hint=hint) from None


def _from_toml(setting: Setting, value: Any, where: str, env: Mapping[str, str]) -> Any:
    """Return the value of a setting in a file, where lists are lists, switches are true or false, the rest strings."""
    where = f"{where}: {setting.name}"
    if setting.many:
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise UsageError(f"{where} is a list of strings", hint=f'try:  {setting.name.split(".")[1]} = ["…"]')
        # A dollar is an anchor in a regular expression, and nothing else there.
        plain = setting.read is values.pattern
        entries = value if plain else [_substituted(entry, where, env) for entry in value]
        return tuple(dict.fromkeys(_from_text(setting._replace(many=False), entry, where) for entry in entries))
    if setting.read is values.switch:
        if isinstance(value, bool):
            return value
        raise UsageError(
            f"{where} is true or false, without quotes", hint=f"try:  {setting.name.split('.')[-1]} = true"
        )
    if isinstance(value, str):
        value = _substituted(value, where, env)
        # `token = "$TOKEN"` with nothing in it would open the desk to everyone.
        return value if setting.read is values.token and not value else _from_text(setting, value, where)
    if isinstance(value, int) and setting.read is values.count:
        return _from_text(setting, str(value), where)
    if isinstance(value, int | float) and not isinstance(value, bool):
        example = f"{value}s" if isinstance(setting.default, float) else f"{value}kB"
        if isinstance(setting.default, Address):
            example = f"127.0.0.1:{value}"
        raise UsageError(f"{where} is a string with its unit, not a number", hint=f'try:  "{example}"')
    raise UsageError(f"{where} is a string", hint=f"try:  {values.written(setting.default)}")


def _substituted(text: str, where: str, env: Mapping[str, str]) -> str:
    """Replace $NAME and ${NAME} by the environment's value; $$ is a dollar."""
    import re

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name is None:
            return "$"
        if not env.get(name):
            raise UsageError(f"{where} reads ${name}, which is not set", hint=f"set {name}, or write $$ for a dollar")
        return env[name]

    return re.sub(r"\$(?:\$|(\w+)|\{(\w+)\})", value, text)


def _unknown(where: str, section: str, key: str, value: Any) -> UsageError:
    table = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(entry, dict) for entry in value))
    if section in _LATER and table:
        brackets = f"[[{section}]]" if isinstance(value, list) else f"[{section}]"
        return UsageError(f"{where}: {brackets} is not available in this version", hint="take it out for now")
    if section == "upstream" and not key and not isinstance(value, str):
        return UsageError(f"{where}: each further server is a table [[upstream]]", hint="mind the double brackets")
    if section in _SECTIONS and not key:
        return UsageError(f"{where}: {section} is a section", hint=f"try:  [{section}]")
    if key:
        known = (*SETTINGS, *UPSTREAM_SETTINGS)
        siblings = [setting.name.partition(".")[2] for setting in known if setting.name.startswith(f"{section}.")]
        brackets = f"[{section}]" if section in _SECTIONS else f"[[{section}]]"
        return UsageError(f'{where}: unknown key "{key}" in {brackets}', hint=_nearest_key(key, siblings))
    if table:
        return UsageError(f"{where}: unknown section [{section}]", hint=values.nearest(section, list(_SECTIONS)[1:]))
    siblings = [setting.name for setting in SETTINGS if "." not in setting.name]
    return UsageError(f'{where}: unknown key "{section}"', hint=_nearest_key(section, siblings))


def _nearest_key(key: str, siblings: Iterable[str]) -> str:
    """Return a hint: the key that was probably meant, else the same word in another section."""
    elsewhere = [setting.name.split(".")[0] for setting in SETTINGS if setting.name.endswith(f".{key}")]
    hint = values.nearest(key, siblings)
    return hint if hint.startswith("did") or not elsewhere else f'did you mean "{key}" in [{elsewhere[0]}]?'


def _line(text: str, section: str, key: str, skip: int = 0) -> int:
    """Return the number of the line that gives a key, as near as a look at each line tells; the parser keeps none.

    Of tables with the same name, ``skip`` many stand before the one that is meant.
    """
    import re

    def bare(name: str) -> str:
        return rf"""["']?{re.escape(name)}["']?"""

    header = re.compile(rf"\s*\[\[?\s*{bare(section)}\s*[].]")
    dotted = re.compile(rf"\s*{bare(section)}\s*" + (rf"\.\s*{bare(key)}\s*[.=]" if key else r"[.=]"))
    inside = re.compile(rf"\s*{bare(key)}\s*[.=]") if key else header
    current = first = 0
    for number, line in enumerate(text.splitlines(), 1):
        if header.match(line) and skip:
            skip -= 1
        elif header.match(line):
            current = number
            first = first or number
            if not key:
                return number
        elif re.match(r"\s*\[", line):
            current = 0
        elif (current and inside.match(line)) or dotted.match(line):
            return number
        elif re.match(rf"\s*{bare(section)}\s*[.=]", line):
            first = first or number
    return first or 1
