"""Settings: where they come from, how they are written, and what is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from mcp_tap.cli.example import example
from mcp_tap.config import (
    NO_UPSTREAM,
    SETTINGS,
    Address,
    Admin,
    Loaded,
    Proxy,
    Record,
    Redact,
    Settings,
    Upstream,
    is_loopback,
    load,
    parse_address,
    parse_upstream,
)
from mcp_tap.model import UsageError
from mcp_tap.values import written

ROOT = Path(__file__).parents[1]
URL = "http://localhost:9000/mcp"
DEFAULTS = Settings(Proxy(parse_upstream(URL)))
SHOP = '[[upstream]]\nname = "shop"\nurl = "http://localhost:9001/mcp"\nlisten = "127.0.0.1:6281"\n'


def loaded(
    cwd: Path, text: str | None = None, *, env: dict[str, str] | None = None, file: str | None = None, **flags: str
) -> Loaded:
    """Load with `text` as the file of the working directory; a flag's dot is written as two underscores."""
    if text is not None:
        (cwd / "mcp-tap.toml").write_text(text)
    return load({name.replace("__", "."): value for name, value in flags.items()}, file=file, env=env or {}, cwd=cwd)


def refused(cwd: Path, text: str | None = None, **sources: Any) -> tuple[str, str]:
    with pytest.raises(UsageError) as caught:
        loaded(cwd, text, **sources)
    return str(caught.value), caught.value.hint


# Where values come from


def test_nothing_said(tmp_path: Path) -> None:
    result = loaded(tmp_path)
    assert result.settings == Settings(Proxy(NO_UPSTREAM))
    assert result.origins == dict.fromkeys((setting.name for setting in SETTINGS), "default")
    with pytest.raises(UsageError, match="which MCP server") as caught:
        result.to_run()
    assert "MCP_TAP_UPSTREAM" in caught.value.hint


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    text = '[proxy]\nupstream = "http://a/"\nlisten = "127.0.0.1:1"\n[admin]\nlisten = "127.0.0.1:1"\ntoken = "t"\n'
    env = {"MCP_TAP_PROXY_LISTEN": "127.0.0.1:2", "MCP_TAP_ADMIN_LISTEN": "127.0.0.1:2"}
    result = loaded(tmp_path, text, env=env, proxy__listen="127.0.0.1:3", record__bodies="none", proxy__upstream=URL)
    settings = result.to_run()
    assert (settings.proxy.listen.port, settings.admin.listen.port) == (3, 2)
    assert (settings.admin.token, settings.record.keep) == ("t", 30 * 86400.0)
    assert {name: origin for name, origin in result.origins.items() if origin != "default"} == {
        "proxy.upstream": "argument URL",
        "proxy.listen": "flag --listen",
        "record.bodies": "flag --bodies",
        "admin.listen": "environment MCP_TAP_ADMIN_LISTEN",
        "admin.token": "mcp-tap.toml line 6",
    }


def test_a_size_that_a_file_gives_can_be_taken_back(tmp_path: Path) -> None:
    text = '[record]\nmax_size = "2GB"\n'
    assert loaded(tmp_path, text).settings.record.max_size == 2_000_000_000
    assert loaded(tmp_path, text, env={"MCP_TAP_RECORD_MAX_SIZE": "unlimited"}).settings.record.max_size is None


def test_a_number_of_connections_is_a_number_too(tmp_path: Path) -> None:
    text = "[proxy]\nmax_connections = 20\n"
    assert loaded(tmp_path, text).settings.proxy.max_connections == 20
    taken_back = loaded(tmp_path, text, env={"MCP_TAP_PROXY_MAX_CONNECTIONS": "unlimited"})
    assert taken_back.settings.proxy.max_connections is None


def test_files_are_searched_in_order(tmp_path: Path) -> None:
    for name, drain in (
        ("c", 1),
        ("e", 2),
        ("mcp-tap", 3),
        ("xdg/mcp-tap/config", 4),
        ("home/.config/mcp-tap/config", 5),
    ):
        file = tmp_path / f"{name}.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'proxy.drain = "{drain}s"')
    env = {"MCP_TAP_CONFIG": "e.toml", "XDG_CONFIG_HOME": str(tmp_path / "xdg"), "HOME": str(tmp_path / "home")}
    drains = [loaded(tmp_path, env=env, file="c.toml")]
    drains.append(loaded(tmp_path, env=env))
    del env["MCP_TAP_CONFIG"]
    drains.append(loaded(tmp_path, env=env))
    (tmp_path / "mcp-tap.toml").unlink()
    drains.append(loaded(tmp_path, env=env))
    env["XDG_CONFIG_HOME"] = "relative/is/ignored"
    drains.append(loaded(tmp_path, env=env))
    assert [each.settings.proxy.drain for each in drains] == [1, 2, 3, 4, 5]
    assert drains[2].origins["proxy.drain"] == "mcp-tap.toml line 1"
    assert loaded(tmp_path).settings.proxy.drain == 7


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    assert refused(tmp_path, file="no.toml")[0] == "-c: there is no file no.toml"
    assert refused(tmp_path, env={"MCP_TAP_CONFIG": "no.toml"})[0] == "MCP_TAP_CONFIG: there is no file no.toml"
    assert refused(tmp_path, file=str(tmp_path))[0].startswith("-c: there is no file")


def test_the_recording_is_below_the_state_directory(tmp_path: Path) -> None:
    assert loaded(tmp_path, env={"XDG_STATE_HOME": "/s/"}).settings.record.store == "sqlite:////s/mcp-tap/tap.db"
    assert loaded(tmp_path, env={"XDG_STATE_HOME": "s"}).settings.record.store == Record().store
    env = {"XDG_STATE_HOME": "/s", "MCP_TAP_STORE": "sqlite:///a.db"}
    assert loaded(tmp_path, env=env).settings.record.store == "sqlite:///a.db"


# One table


def test_the_table_and_the_dataclasses_hold_the_same_settings() -> None:
    sections = {"": Settings, "proxy.": Proxy, "admin.": Admin, "record.": Record, "redact.": Redact}
    named = {f"{section}{field.name}" for section, kind in sections.items() for field in fields(kind)}
    assert named - {"proxy", "admin", "record", "redact", "others", "proxy.name"} == {
        setting.name for setting in SETTINGS
    }
    variables = [name for setting in SETTINGS for name in (setting.variable, setting.short) if name]
    assert len(variables) == len(set(variables))


@pytest.mark.parametrize("setting", SETTINGS, ids=[setting.name for setting in SETTINGS])
def test_each_default_can_be_written(setting: Any, tmp_path: Path) -> None:
    if setting.default in (None, NO_UPSTREAM) and setting.name != "record.keep":
        return
    section, _, key = setting.name.rpartition(".")
    header = f"[{section}]\n" if section else ""
    result = loaded(tmp_path, f"{header}{key} = {written(setting.default)}\n")
    assert result.settings == Settings(Proxy(NO_UPSTREAM))
    assert result.origins[setting.name].startswith("mcp-tap.toml line")


OTHER = {
    "format": ("json", "json"),
    "debug": ("true", True),
    "proxy.upstream": ("https://example.com/a", Upstream("https://example.com/a", "https", "example.com", 443, "/a")),
    "proxy.listen": ("[::1]:0", Address("::1", 0)),
    "proxy.connect_timeout": ("250ms", 0.25),
    "proxy.drain": ("0s", 0.0),
    "proxy.max_connections": ("20", 20),
    "proxy.host": ("example.com:8080", "example.com:8080"),
    "proxy.hosts": ("a.example, b.example:1,", ("a.example", "b.example:1")),
    "proxy.client_address": ("peer", "peer"),
    "proxy.trusted": ("10.0.0.0/8,::1", ("10.0.0.0/8", "::1/128")),
    "proxy.tls_ca": ("ca.pem", "ca.pem"),
    "proxy.tls_verify": ("false", False),
    "proxy.tls_cert": ("tap.pem", "tap.pem"),
    "proxy.tls_key": ("tap.key", "tap.key"),
    "admin.listen": (":0", Address("127.0.0.1", 0)),
    "admin.token": ("s3cret", "s3cret"),
    "admin.hosts": ("tap.example,tap.example:8443", ("tap.example", "tap.example:8443")),
    "record.store": ("sqlite:////data/tap.db", "sqlite:////data/tap.db"),
    "record.bodies": ("full", "full"),
    "record.max_body": ("1.5MB", 1_500_000),
    "record.keep": ("forever", None),
    "record.max_size": ("2GB", 2_000_000_000),
    "record.session_idle": ("2h", 7200.0),
    "record.queue": ("1GB", 1_000_000_000),
    "redact.headers": ("X-Acme,x-acme", ("x-acme",)),
    "redact.keys": ("Floor_Plan", ("floorplan",)),
    "redact.patterns": ("a+$", ("a+$",)),
    "redact.session_id": ("hash", "hash"),
}


@pytest.mark.parametrize("setting", SETTINGS, ids=[setting.name for setting in SETTINGS])
@pytest.mark.parametrize("source", ["flag", "environment", "short", "file"])
def test_each_setting_can_be_given_everywhere(setting: Any, source: str, tmp_path: Path) -> None:
    text, value = OTHER[setting.name]
    section, _, key = setting.name.rpartition(".")
    beside = {"MCP_TAP_PROXY_TLS_CERT": "tap.pem"} if setting.name == "proxy.tls_key" else {}
    match source:
        case "flag":
            result = load({setting.name: text}, file=None, env=beside, cwd=tmp_path)
        case "environment" | "short":
            variable = setting.variable if source == "environment" else setting.short
            if not variable:
                return
            result = loaded(tmp_path, env={variable: text} | beside)
            assert result.origins[setting.name] == f"environment {variable}"
        case _:
            in_file = f'"{text}"' if not isinstance(value, bool) else text
            if setting.many:
                in_file = str([part.strip() for part in text.split(",") if part.strip()])
            lines = f"# first\n{f'[{section}]' if section else ''}\n\n{key} = {in_file}"
            result = loaded(tmp_path, lines, env=beside)
            assert result.origins[setting.name] == "mcp-tap.toml line 4"
    assert getattr(getattr(result.settings, section) if section else result.settings, key) == value
    others = {name for name, origin in result.origins.items() if origin != "default"}
    assert others == {setting.name, *(["proxy.tls_cert"] if beside else [])}


def test_what_crosses_to_the_other_process_is_the_same() -> None:
    settings = replace(DEFAULTS, redact=Redact(headers=("x",), keys=("abc",), patterns=("a+",)), debug=True)
    assert Settings.from_json(settings.to_json()) == settings
    socket = Proxy(parse_upstream("http://unix:/s:/mcp"), parse_address("unix:/t"), hosts=("a",), name="other")
    settings = replace(settings, others=(socket,))
    assert Settings.from_json(settings.to_json()) == settings
    fd = settings.to_file()
    assert [Settings.from_file(fd) for _ in range(2)] == [settings, settings]
    os.close(fd)


# Several servers


def test_an_upstream_table_inherits_from_proxy(tmp_path: Path) -> None:
    text = (
        "[proxy]\nconnect_timeout = '1s'\nhosts = ['a.example']\ntls_cert = 'c'\ntls_key = 'k'\n"
        f"{SHOP}hosts = []\n[[upstream]]\nurl = 'https://b/'\nlisten = 'unix:/run/b'\ntls_cert = 'd'\n"
    )
    result = loaded(tmp_path, text)
    shop, other = result.to_run().proxies
    assert (shop.name, shop.upstream.url, shop.listen) == (
        "shop",
        "http://localhost:9001/mcp",
        Address("127.0.0.1", 6281),
    )
    assert (shop.connect_timeout, shop.hosts, shop.tls_cert, shop.tls_key) == (1.0, (), "c", "k")
    assert (other.listen, other.hosts) == (Address("", 0, "/run/b"), ("a.example",))
    assert (other.tls_cert, other.tls_key) == ("d", None)  # never another certificate's key
    assert result.origins["upstream.2.url"] == "mcp-tap.toml line 12"
    assert result.values["upstream.1.name"] == "shop"
    assert result.values["proxy.upstream"] == NO_UPSTREAM


def test_the_server_of_proxy_is_the_first_of_several(tmp_path: Path) -> None:
    first, second = loaded(tmp_path, f"[proxy]\nupstream = '{URL}'\n{SHOP}").to_run().proxies
    assert (first.upstream.url, first.listen.port, second.name) == (URL, 6278, "shop")
    env = {"MCP_TAP_UPSTREAM": "http://b/"}
    assert [proxy.upstream.host for proxy in loaded(tmp_path, SHOP, env=env).to_run().proxies] == ["b", "localhost"]


def test_a_server_named_on_the_command_line_is_the_only_one(tmp_path: Path) -> None:
    (only,) = loaded(tmp_path, SHOP, proxy__upstream=URL, proxy__listen=":1").to_run().proxies
    assert (only.upstream.url, only.listen.port) == (URL, 1)
    assert "unknown key" in refused(tmp_path, f"{SHOP}x = 1", proxy__upstream=URL)[0]


def test_two_listeners_may_lead_to_one_server(tmp_path: Path) -> None:
    again = SHOP.replace("shop", "again").replace("127.0.0.1:6281", "unix:/run/tap.sock")
    assert len({proxy.upstream.url for proxy in loaded(tmp_path, SHOP + again).to_run().proxies}) == 1


def test_what_clients_are_given() -> None:
    proxy = Proxy(parse_upstream(URL))
    assert proxy.url == "http://127.0.0.1:6278/mcp"
    assert replace(proxy, tls_cert="c").url == "https://127.0.0.1:6278/mcp"
    assert replace(proxy, listen=parse_address("unix:/run/tap.sock")).url == "http://unix:/run/tap.sock:/mcp"


# The example and the document


def test_the_example_is_the_file_in_the_repository(tmp_path: Path) -> None:
    assert (ROOT / "config.example.toml").read_text() == example()
    assert loaded(tmp_path, example()).to_run() == DEFAULTS
    everything = re.sub(r"^# (\w+ = )", r"\1", example(), flags=re.MULTILINE)
    uncommented = loaded(tmp_path, everything)
    assert {origin == "default" for origin in uncommented.origins.values()} == {False}
    given: dict[str, Any] = {
        "max_connections": 2000,
        "tls_ca": "/etc/ssl/our-ca.pem",
        "tls_cert": "/etc/ssl/tap.pem",
        "tls_key": "/etc/ssl/tap.key",
    }
    assert uncommented.settings == replace(
        DEFAULTS, proxy=replace(DEFAULTS.proxy, **given), record=replace(DEFAULTS.record, max_size=2_000_000_000)
    )


def row(setting: Any) -> str:
    names = " ".join(f"`{name}`" for name in (setting.variable, setting.short) if name)
    default = "none" if setting.default in (None, "", NO_UPSTREAM) and setting.name != "record.keep" else ""
    return f"| `{setting.name}` | {names} | {default or f'`{written(setting.default)}`'} | {setting.help} |"


def test_the_document_has_each_setting_and_no_other() -> None:
    document = (ROOT / "docs" / "configuration.md").read_text()
    rows = [line for line in document.splitlines() if re.match(r"\| `[a-z_]+(\.[a-z_]+)?` \|", line)]
    assert rows == [row(setting) for setting in SETTINGS]
    for flag in {setting.flag for setting in SETTINGS if setting.flag.startswith("--")}:
        assert f"`{flag}`" in document


# What is refused: what, where, what now


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            '[proxy]\n\nupsteam = "x"',
            'mcp-tap.toml line 3: unknown key "upsteam" in [proxy]',
            'did you mean "upstream"?',
        ),
        (
            '[proxy]\ntoken = "x"',
            'mcp-tap.toml line 2: unknown key "token" in [proxy]',
            'did you mean "token" in [admin]?',
        ),
        ('listen = "x"', 'mcp-tap.toml line 1: unknown key "listen"', 'did you mean "listen" in [proxy]?'),
        ("[prxy]\na = 1", "mcp-tap.toml line 1: unknown section [prxy]", 'did you mean "proxy"?'),
        ('proxy = "x"', "mcp-tap.toml line 1: proxy is a section", "try:  [proxy]"),
        ("[[proxy]]\na = 1", "mcp-tap.toml line 1: proxy is a section", "try:  [proxy]"),
        ("\n[gateway]\nlisten = ''", "mcp-tap.toml line 2: [gateway] is not available in this version", "take it out"),
        (
            "[[export]]\ntype = 'otlp'",
            "mcp-tap.toml line 1: [[export]] is not available in this version",
            "take it out",
        ),
        ("[[upstream]]\nurl = 'x'", 'mcp-tap.toml line 2: upstream.url: "x" is not the URL', "http://x"),
        ("[[upstream]]\nurl = 'http://a/'", "mcp-tap.toml line 2: this [[upstream]] has no listen", "127.0.0.1:6281"),
        ("[[upstream]]\nlisten = ':1'", "mcp-tap.toml line 2: this [[upstream]] has no url", "http://"),
        ("\n[[upstream]]", "mcp-tap.toml line 2: this [[upstream]] is empty", "url"),
        (f"{SHOP}{SHOP}drain = '1s'", 'mcp-tap.toml line 9: unknown key "drain" in [[upstream]]', "in [proxy]"),
        (f"{SHOP}{SHOP}", 'mcp-tap.toml line 6: two [[upstream]] are named "shop"', "own name"),
        (f"{SHOP}{SHOP}".replace("shop", " a"), 'mcp-tap.toml line 2: upstream.name: " a" is not a name', "blanks"),
        (f"{SHOP}[[upstream]]\nurl = 7", "mcp-tap.toml line 6: upstream.url is a string", "try"),
        (f"{SHOP}tls_key = 'a'", "tls_key is given without tls_cert", "certificate"),
        ("[upstream]\nurl = 'x'", "mcp-tap.toml line 1: each further server is a table [[upstream]]", "brackets"),
        (
            f"[proxy]\nlisten = ':1'\n{SHOP}",
            "mcp-tap.toml line 2: proxy.listen is for the server of proxy.upstream, and there is none",
            "of its own",
        ),
        (
            f"[proxy]\nupstream = 'http://a/'\nlisten = ':6281'\n{SHOP}",
            "listen of shop and listen of http://a/ are both 127.0.0.1:6281",
            "127.0.0.1:0",
        ),
        ("upstream = 'x'", 'mcp-tap.toml line 1: unknown key "upstream"', 'did you mean "upstream" in [proxy]?'),
        ("[proxy]\ndrain = 7", "mcp-tap.toml line 2: proxy.drain is a string with its unit, not a number", '"7s"'),
        ("[record]\nmax_body = 7", "mcp-tap.toml line 2: record.max_body is a string with its unit", '"7kB"'),
        ("[proxy]\nlisten = 80", "mcp-tap.toml line 2: proxy.listen is a string", '"127.0.0.1:80"'),
        ("[proxy]\ndrain = '7'", 'mcp-tap.toml line 2: proxy.drain: "7" has no unit', "7s"),
        ("[proxy]\ndrain = true", "mcp-tap.toml line 2: proxy.drain is a string", '"7s"'),
        ("[proxy]\ndrain = ['7s']", "mcp-tap.toml line 2: proxy.drain is a string", '"7s"'),
        ("[proxy.drain]\na = 1", "mcp-tap.toml line 1: proxy.drain is a string", '"7s"'),
        ("[proxy]\ntls_verify = 'no'", "mcp-tap.toml line 2: proxy.tls_verify is true or false", "tls_verify = true"),
        ("[redact]\nkeys = 'pin'", "mcp-tap.toml line 2: redact.keys is a list of strings", 'keys = ["…"]'),
        ("[redact]\nkeys = [1]", "mcp-tap.toml line 2: redact.keys is a list of strings", 'keys = ["…"]'),
        ("[redact]\npatterns = ['(']", 'mcp-tap.toml line 2: redact.patterns: "(" is not a regular expression', "try"),
        ("[proxy]\nlisten = 127.0.0.1", "mcp-tap.toml line 2: ", "quotes"),
        ("[proxy]\ndrain = '1s'\ndrain = '2s'", "mcp-tap.toml: cannot overwrite a value", "quotes"),
        ("x = [" + "[" * 3000, "mcp-tap.toml", ""),
        ('[admin]\ntoken = "$NO_SUCH"', "mcp-tap.toml line 2: admin.token reads $NO_SUCH, which is not set", "NO_SUCH"),
        ('[admin]\ntoken = "a b"', "mcp-tap.toml line 2: admin.token: a token is made of printable ASCII", "openssl"),
    ],
)
def test_a_file_that_cannot_be_meant(text: str, message: str, hint: str, tmp_path: Path) -> None:
    what, now = refused(tmp_path, text)
    assert what.startswith(message)
    assert hint in now


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "mcp-tap.toml").write_bytes(b"a = '\xff'")
    assert refused(tmp_path)[0] == "mcp-tap.toml is not UTF-8"
    (tmp_path / "mcp-tap.toml").write_bytes(b"\xef\xbb\xbfdebug = true\r\n")
    assert loaded(tmp_path).settings.debug


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("proxy.drain = '1s'", 1),
        ("# drain = 1\n[admin] # x\n[ proxy ] # drain\nlisten=':1'\n 'drain' = '1s'", 5),
        ("proxy = { listen = ':1',  drain = '1s' }", 1),
        ("[record]\nqueue = '1MB'\n[proxy]\n# drain\n\"drain\"='1s'\n[admin]", 5),
    ],
)
def test_the_line_of_a_key(text: str, line: int, tmp_path: Path) -> None:
    assert loaded(tmp_path, text).origins["proxy.drain"] == f"mcp-tap.toml line {line}"


@pytest.mark.parametrize(
    ("env", "message", "hint"),
    [
        (
            {"MCP_TAP_UPSTRAEM": URL},
            "unknown environment variable MCP_TAP_UPSTRAEM",
            'did you mean "MCP_TAP_UPSTREAM"?',
        ),
        ({"MCP_TAP_LISTEN": ":1"}, "unknown environment variable MCP_TAP_LISTEN", "MCP_TAP_"),
        ({"MCP_TAP_RECORD_BODIES": "ful"}, 'MCP_TAP_RECORD_BODIES: "ful" is none of none, redacted, full', '"full"'),
        ({"MCP_TAP_PROXY_DRAIN": "7"}, 'MCP_TAP_PROXY_DRAIN: "7" has no unit', "7s"),
        ({"MCP_TAP_DEBUG": "1"}, 'MCP_TAP_DEBUG: "1" is neither true nor false', "true"),
        (
            {"MCP_TAP_STORE": "sqlite:///a", "MCP_TAP_RECORD_STORE": "sqlite:///b"},
            "MCP_TAP_RECORD_STORE and MCP_TAP_STORE are the same setting and differ",
            "unset",
        ),
    ],
)
def test_an_environment_that_cannot_be_meant(env: dict[str, str], message: str, hint: str, tmp_path: Path) -> None:
    what, now = refused(tmp_path, env=env)
    assert what == message
    assert hint in now


def test_what_others_put_into_the_environment_is_left_alone(tmp_path: Path) -> None:
    # The second half is what Kubernetes gives each pod for Services that are called mcp-tap and mcp-tap-admin.
    env = {"MCP_TAP_TOKEN": "", "MCP_TAP": "x", "PATH": "/bin", "MCP_TAP_SERVICE_HOST": "10.0.0.1",
           "MCP_TAP_SERVICE_PORT": "80", "MCP_TAP_SERVICE_PORT_HTTP": "80", "MCP_TAP_PORT": "tcp://10.0.0.1:80",
           "MCP_TAP_PORT_80_TCP": "tcp://10.0.0.1:80", "MCP_TAP_PORT_80_TCP_PROTO": "tcp",
           "MCP_TAP_PORT_80_TCP_PORT": "80", "MCP_TAP_ADMIN_PORT_80_TCP_ADDR": "10.0.0.1"}  # fmt: skip
    assert set(loaded(tmp_path, env=env).origins.values()) == {"default"}


def test_a_desk_that_is_open_to_others_has_a_token(tmp_path: Path) -> None:
    what, now = refused(tmp_path, admin__listen="0.0.0.0:6279")
    assert what == "refusing to listen on 0.0.0.0:6279 without a token"
    assert "MCP_TAP_TOKEN=" in now
    assert "--admin-listen 127.0.0.1:6279" in now
    assert loaded(tmp_path, admin__listen="0.0.0.0:6279", env={"MCP_TAP_TOKEN": "t"}).settings.admin.token == "t"
    assert refused(tmp_path, '[admin]\nlisten = "[::]:1"\ntoken = ""')[0].startswith("refusing to listen on [::]:1")


def test_settings_that_contradict_each_other(tmp_path: Path) -> None:
    assert "both 127.0.0.1:6279" in refused(tmp_path, proxy__listen="127.0.0.1:6279")[0]
    assert loaded(tmp_path, proxy__listen=":0", admin__listen=":0").settings.proxy.listen.port == 0
    assert "believes nobody" in refused(tmp_path, proxy__client_address="x-forwarded-for")[0]


def test_values_of_the_environment_in_the_file(tmp_path: Path) -> None:
    env = {"HOST": "example.com", "T": "s3cret"}
    text = "[proxy]\nupstream = 'http://${HOST}:1/$$x'\nhosts = ['$HOST']\n[admin]\ntoken = '$T'\n"
    settings = loaded(tmp_path, text + "[redact]\npatterns = ['a$HOST', 'b$']", env=env).settings
    assert settings.proxy.upstream == Upstream("http://example.com:1/$x", "http", "example.com", 1, "/$x")
    assert settings.proxy.hosts == ("example.com",)
    assert settings.admin.token == "s3cret"
    assert settings.redact.patterns == ("a$HOST", "b$")


# Values


@pytest.mark.parametrize(
    ("text", "upstream"),
    [
        ("http://localhost:9000/mcp", Upstream("http://localhost:9000/mcp", "http", "localhost", 9000, "/mcp")),
        ("HTTP://Example.COM", Upstream("HTTP://Example.COM", "http", "example.com", 80, "/")),
        ("https://example.com/", Upstream("https://example.com/", "https", "example.com", 443, "/")),
        ("https://[::1]:8443/a/b", Upstream("https://[::1]:8443/a/b", "https", "::1", 8443, "/a/b")),
        ("http://[::1]/@x", Upstream("http://[::1]/@x", "http", "::1", 80, "/@x")),
        ("http://unix:/s.sock:/a", Upstream("http://unix:/s.sock:/a", "http", "localhost", 80, "/a", "/s.sock")),
        ("http://unix:/s.sock", Upstream("http://unix:/s.sock", "http", "localhost", 80, "/", "/s.sock")),
    ],
)
def test_upstreams(text: str, upstream: Upstream) -> None:
    assert parse_upstream(text) == upstream


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "localhost:9000/mcp",
            '"localhost:9000/mcp" is not the URL',
            "write it with its scheme:  http://localhost:9000/mcp",
        ),
        ("example.com", '"example.com" is not the URL', "http://example.com"),
        ("npx -y server", '"npx -y server" is not the URL', "http://localhost:9000/mcp"),
        ("", '"" is not the URL', "http://localhost:9000/mcp"),
        ("ws://a/", '"ws://a/" is not an http or https URL', "over HTTP"),
        ("http://joe:hunter2@a/", '"http://…@a/" carries a user name', "leave them out"),
        ("joe:hunter2@a/mcp", '"a/mcp" is not the URL', "http://a/mcp"),
        ("http://a/mcp?key=hunter2", '"http://a/mcp" carries more than a path', "to the client"),
        ("http://a/mcp#x", "carries more than a path", "leave # out"),
        ("http://", "names no host", "try"),
        ("http://:80/", "names no host", "try"),
        ("http://a:0/", "no port to connect to", "try"),
        ("http://a:99999/", "no host and port that can be read", "try"),
        ("http://a:b/", "no host and port that can be read", "try"),
        ("http://[::1/", "no host and port that can be read", "try"),
        ("http://a b/", "characters that a URL cannot have", "%"),
        ("http://a/\nX: y", "characters that a URL cannot have", "%"),
        ("http+unix://%2Fs.sock/mcp", "is not the URL", "http://unix:/run/server.sock:/mcp"),
        ("https://unix:/s.sock:/mcp", "is not the URL", "http://unix:/run/server.sock:/mcp"),
        ("http://unix:hunter2@a/", "carries a user name", "leave them out"),
        ("http://unix:/s.sock:/mcp?key=hunter2", "more behind the socket than a path", "/mcp"),
        ("http://unix:/s/:/mcp", "names no unix socket", "root"),
        (f"http://unix:/{'s' * 103}", "too long", "103"),
        ("http://bücher.example/", "characters that a URL cannot have", "xn--"),
    ],
)
def test_what_is_no_upstream(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_upstream(text)
    assert message in str(caught.value)
    assert hint in caught.value.hint
    assert "hunter2" not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:6278", Address("127.0.0.1", 6278)),
        (":6278", Address("127.0.0.1", 6278)),
        ("6278", Address("127.0.0.1", 6278)),
        ("[::1]:0", Address("::1", 0)),
        ("localhost:0", Address("localhost", 0)),
        ("0.0.0.0:80", Address("0.0.0.0", 80)),
        ("my-host.example:65535", Address("my-host.example", 65535)),
        ("unix:/run/tap.sock", Address("", 0, "/run/tap.sock")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", ":", "localhost", "127.0.0.1", "[::1]", "::1", "::1:80", "a:65536", "a:-1", "a:²", "1.2.3:80", "256.0.0.1:80",
     "*:80", "a b:80", "unix:", "unix:tap.sock", "unix:/tmp/", "http://a:80", "[a]:80", "[]:80", "a..b:80", "a:123456"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("a.localhost", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.com", False), ("localhost.example.com", False)],
)  # fmt: skip
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("proxy.connect_timeout", "0s", "no time at all"),
        ("proxy.drain", "-1s", "not a length of time"),
        ("proxy.drain", "1e3s", "not a length of time"),
        ("proxy.drain", "", "not a length of time"),
        ("proxy.drain", "5 parsecs", "not a length of time"),
        ("proxy.drain", "5kB", "not a length of time"),
        ("proxy.max_connections", "0", "not how many"),
        ("proxy.max_connections", "2kB", "not how many"),
        ("proxy.max_connections", "9" * 5000, "not how many"),
        ("record.keep", "99999d", "longer than a hundred years"),
        ("record.keep", "0d", "no time at all"),
        ("record.keep", "30", "has no unit"),
        ("record.max_size", "1kB", "out of range"),
        ("record.max_size", "forever", "not a size"),
        ("record.max_body", "9MB", "out of range"),
        ("record.max_body", "0B", "out of range"),
        ("record.max_body", "64", "has no unit"),
        ("record.max_body", "64KiB", "not a size"),
        ("record.max_body", "9" * 5000 + "B", "not a size"),
        ("record.queue", "1kB", "out of range"),
        ("record.store", "clickhouse://a/b", "not available in this version"),
        ("record.store", "tap.db", "not the URL of a store"),
        ("record.store", "sqlite:///", "not the URL of a store"),
        ("record.store", "postgres://a", "not the URL of a store"),
        ("proxy.host", "a\r\nX: y", "not a host"),
        ("proxy.host", "a/b", "not a host"),
        ("proxy.hosts", "ok.example,a b", "not a host"),
        ("proxy.trusted", "10.0.0.1/8", "not a network"),
        ("proxy.tls_ca", "", "empty"),
        ("admin.listen", "unix:/run/desk.sock", "not an address and a port"),
        ("redact.headers", "x acme", "not the name of a header"),
        ("redact.keys", "a", "not the end of a key"),
        ("redact.patterns", "(", "not a regular expression"),
        ("redact.patterns", "a*", "matches where nothing is"),
        ("format", "xml", "none of text, json, none"),
    ],
)
def test_malformed_values(name: str, text: str, message: str, tmp_path: Path) -> None:
    what, now = refused(tmp_path, **{name: text})
    assert message in what
    assert now


def test_the_relay_pays_for_no_parser() -> None:
    heavy = {"tomllib", "difflib", "ipaddress", "urllib.parse", "orjson", "msgspec"}
    code = f"import sys, mcp_tap.config; print(sorted({heavy!r} & set(sys.modules)))"
    # Without site: what an environment's own start-up files import is not ours.
    shown = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "[]"
