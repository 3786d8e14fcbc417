"""Several servers behind one tap: each has its own listener, all share one recording."""

from __future__ import annotations

import asyncio
import socket
import ssl
import stat
from pathlib import Path

import httpx

from tests.certificate import make
from tests.sdk.harness import sample_server
from tests.tap import PATIENCE, call, initialize, running


async def converse(url: str, name: str, transport: httpx.AsyncHTTPTransport) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE, transport=transport) as http:
        headers = await initialize(http, url, name)
        await call(http, url, headers, 1, "search_products", query="boots")


def test_three_servers_over_tcp_tls_and_unix_sockets(tmp_path: Path) -> None:
    pem, name = make(tmp_path), str(tmp_path / "tap.sock")
    with sample_server() as first, sample_server() as second:
        (tmp_path / "tap.toml").write_text(
            f"""
            [[upstream]]
            name = "safe"
            url = "{second}"
            listen = "127.0.0.1:0"
            tls_cert = "{pem}"

            [[upstream]]
            name = "local"
            url = "{first}"
            listen = "unix:{name}"

            [[upstream]]
            name = "gone"
            url = "http://unix:{tmp_path}/nobody:/mcp"
            listen = "127.0.0.1:0"
            """
        )
        environment = {"MCP_TAP_UPSTREAM": first}
        with running("run", tmp_path / "tap.db", "-c", str(tmp_path / "tap.toml"), env=environment) as tap:
            listeners = [line.split()[1] for line in tap.said if line.strip().startswith("proxy")]
            assert listeners[2] == f"http://unix:{name}:/mcp"
            assert stat.S_ISSOCK(Path(name).stat().st_mode)
            asyncio.run(converse(listeners[0], "tcp", httpx.AsyncHTTPTransport()))
            trust = ssl.create_default_context(cafile=str(pem))
            asyncio.run(converse(listeners[1], "tls", httpx.AsyncHTTPTransport(verify=trust)))
            asyncio.run(converse("http://localhost/mcp", "unix", httpx.AsyncHTTPTransport(uds=name)))
            answer = httpx.post(listeners[3], trust_env=False)
            assert (answer.status_code, answer.text.splitlines()[0]) == (
                502,
                f"mcp-tap: cannot connect to unix:{tmp_path}/nobody (no such file or directory)",
            )
            ready = httpx.get(f"{tap.desk}/readyz", trust_env=False).json()
            assert [each["name"] for each in ready["upstreams"]] == [None, "safe", "local", "gone"]
            assert [each["upstream_state"].split()[0] for each in ready["upstreams"]] == ["connected"] * 3 + ["does"]
            assert ready["upstream"] == first
            assert tap.stop() == 0
            assert not Path(name).exists()
        sessions = tap.rows("SELECT client_name, upstream, calls, errors FROM sessions ORDER BY started")
        assert [tuple(session.values()) for session in sessions] == [
            ("tcp", first, 2, 0), ("tls", second, 2, 0), ("unix", first, 2, 0),
        ]  # fmt: skip


def test_a_port_that_is_taken_is_named_with_its_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        table = f'[[upstream]]\nname = "shop"\nurl = "http://127.0.0.1:1/"\nlisten = "127.0.0.1:{port}"\n'
        (tmp_path / "tap.toml").write_text(table)
        environment = {"MCP_TAP_UPSTREAM": "http://127.0.0.1:1/"}
        with running("run", tmp_path / "tap.db", "-c", str(tmp_path / "tap.toml"), env=environment) as tap:
            assert tap.process.wait(PATIENCE) == 2
            assert tap.said[0] == f"error: port {port} is already in use on 127.0.0.1"
            assert tap.said[-1] == '  try:  listen = "127.0.0.1:6290"  for shop'


def test_a_socket_that_is_listened_on_is_not_taken_over(tmp_path: Path) -> None:
    name = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(name)
        other.listen()
        with running("http://127.0.0.1:1/", tmp_path / "tap.db", "--listen", f"unix:{name}") as tap:
            assert tap.process.wait(PATIENCE) == 2
            assert tap.said[0] == f"error: unix:{name} is already in use"
    assert Path(name).exists()  # nobody listens any more, but the name is not ours


def test_a_certificate_without_its_key_is_one_clear_error(tmp_path: Path) -> None:
    pem = make(tmp_path)
    pem.write_text(pem.read_text().partition("-----BEGIN PRIVATE")[0])
    environment = {"MCP_TAP_PROXY_TLS_CERT": str(pem)}
    with running("http://127.0.0.1:1/", tmp_path / "tap.db", env=environment) as tap:
        assert tap.process.wait(PATIENCE) == 2
        assert tap.said[0] == f"error: cannot use the certificate of {pem}"
        assert "tls_key" in tap.said[1]
    with running("http://127.0.0.1:1/", tmp_path / "tap.db", env={"MCP_TAP_PROXY_TLS_CERT": "/no/such.pem"}) as tap:
        assert tap.process.wait(PATIENCE) == 2
        assert tap.said[0] == "error: cannot use the certificate of /no/such.pem (no such file or directory)"
