"""Who may ask the desk, under which name, and in which way."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from mcp_tap.api.desk import Recording
from mcp_tap.config import Proxy, parse_upstream
from tests.api.asking import Asking

TOKEN = "correct-horse-battery"
EVERYWHERE = ("/", "/sessions", "/api", "/api/sessions", "/api/nothing", "/nothing", "/static/app.css",
              "/static/nothing.css", "/healthz", "/readyz", "/api/events?limit=0", "/sessions?limit=0")  # fmt: skip


@pytest.fixture(scope="session")
def guarded(asking: Asking) -> Iterator[Asking]:
    with Asking(asking.path, token=TOKEN) as guarded:
        yield guarded


@pytest.fixture(scope="session")
def named(asking: Asking) -> Iterator[Asking]:
    with Asking(asking.path, hosts=("desk.example", "ported.example:8443")) as named:
        yield named


@pytest.mark.parametrize("url", EVERYWHERE)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_every_answer_has_the_headers_that_protect_a_browser(asking: Asking, url: str, method: str) -> None:
    answer = asking.answer(url, method=method)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "trusted-types 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    cached = url == "/static/app.css" and method in ("GET", "HEAD")
    assert answer.headers["cache-control"] == ("no-cache" if cached else "no-store")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND"])
@pytest.mark.parametrize("url", ["/", "/api/sessions", "/static/app.css", "/healthz", "/api/nothing"])
def test_nothing_can_be_changed(asking: Asking, method: str, url: str) -> None:
    answer = asking.answer(url, method=method)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    if url.startswith("/api"):
        assert answer.json()["code"] == "method_not_allowed"


def test_options_says_what_is_allowed(asking: Asking) -> None:
    answer = asking.answer("/api/sessions", method="OPTIONS")
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, "GET, HEAD, OPTIONS", b"")
    assert not any(name.startswith("access-control") for name in answer.headers)


HOSTS = {
    "localhost": True,
    "localhost:6279": True,
    "127.0.0.1:6279": True,
    "127.9.9.9": True,
    "[::1]:6279": True,
    "LOCALHOST": True,
    "tap.localhost:6279": True,
    "desk.example": True,
    "DESK.example:443": True,
    "ported.example:8443": True,
    "ported.example": False,
    "rebound.example:6279": False,
    "localhost.example": False,
    "127.0.0.1.example": False,
    "desk.example.evil.example": False,
    "10.0.0.5:6279": False,
    "": False,
    "a b": False,
    "@localhost": False,
    "127.0.0.1@evil.example": False,
}


@pytest.mark.parametrize("host", HOSTS)
def test_the_desk_answers_to_its_own_names_only(named: Asking, host: str) -> None:
    for url in ("/api/sessions", "/", "/healthz", "/static/app.css"):
        answer = named.answer(url, headers={"host": host})
        assert answer.status_code == (200 if HOSTS[host] else 421), url


def test_a_name_that_is_not_ours_learns_nothing(asking: Asking) -> None:
    told = asking.json("/api/sessions", 421, headers={"host": "rebound.example"})
    assert (told["code"], "admin" in told["hint"]) == ("misdirected_request", True)
    assert "claude" not in asking.answer("/sessions", headers={"host": "rebound.example"}).text


FOREIGN: list[tuple[dict[str, str], int]] = [
    ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}, 403),
    ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, 403),
    ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, 403),
    ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 403),
    ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
    ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, 200),
    ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
    ({"origin": "http://127.0.0.1:6279"}, 200),
    ({"origin": "http://evil.example"}, 403),
    ({"origin": "http://127.0.0.1:6278"}, 403),
    ({"origin": "null"}, 403),
]


@pytest.mark.parametrize(("headers", "status"), FOREIGN)
def test_another_sites_page_may_not_ask(asking: Asking, headers: dict[str, str], status: int) -> None:
    assert asking.answer("/api/sessions", headers=headers).status_code == status


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/..%2f..%2fapp.py", "/static/%2e%2e/%2e%2e/app.py", "/static//etc/passwd",
     "/static/%2fetc%2fpasswd", "/static/....//app.py", "/static/..\\..\\app.py", "/static/", "/static/app.css%00.js",
     "/static/../templates/base.html"],
)  # fmt: skip
def test_no_file_but_our_own_is_served(asking: Asking, path: str) -> None:
    answer = asking.answer(path)
    assert answer.status_code == 404
    assert "import" not in answer.text
    assert "root:" not in answer.text


@pytest.mark.parametrize("url", ["/sessions", "/api/sessions", "/static/app.css", "/healthz", "/nothing"])
def test_addresses_that_are_too_long_are_refused(asking: Asking, url: str) -> None:
    answers = [asking.answer(f"{url}?q=" + "a" * 40_000), asking.answer(url + "/a" * 20_000)]
    for answer in answers:
        assert answer.status_code == 414
        assert "aaaa" not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"


HOSTILE = (
    "q=%00", "q=%ff%fe", "q=%ed%a0%80", "q=text:" + "_" * 7_000, "limit=99999999999999999999", "limit=%D9%A3",
    "cursor=cur_" + "z" * 200, "cursor=cur_" + "z" * 9_000, "q=" + "+".join(f"w{number}" for number in range(1_500)),
    "tool=" + "*a" * 30 + "*b", "tool=" + "a,b" * 3_000, "&".join(f"tool=a{number}" for number in range(1_500)),
    "since=999999w", "from=9999-01-01&to=0001-01-01", "from=0001-01-01&to=9999-12-30", "q=latency:999999999999h",
    "q=size:%3E999999999999gb", "after=smg_%00", "&".join(f"a{number}=" for number in range(1_500)),
    "theme=dark%0d%0aset-cookie:x=1", "zoom=1e400..nan", "event=%00", "open=scn_%00", "reveal=%3Cscript%3Ealert(1)",
    "time=%00", "table=" + "9" * 5_000, "%00=%00", "%ff=%ff", "&&&===", "q=-", "q=%22%5C", "q=tool:", "-q=a",
)  # fmt: skip
PAGES = ("/", "/sessions", "/tools", "/clients", "/errors", "/slow", "/connections", "/live", "/api", "/api/sessions",
         "/api/connections", "/api/messages", "/api/events", "/api/tools", "/api/clients", "/api/errors", "/api/slow",
         "/api/session-errors")  # fmt: skip


@pytest.mark.parametrize("query", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_question_is_answered_or_refused(asking: Asking, query: str) -> None:
    for path in PAGES:
        answer = asking.answer(f"{path}?{query}")
        assert answer.status_code in (200, 400), f"{path}?{query[:100]}: {answer.status_code}"
        assert "<script>alert" not in answer.text
        assert not [value for value in answer.headers.get_list("set-cookie") if "x=1" in value]


@pytest.mark.parametrize(
    "name",
    ["%00", "%ff%fe", "%ed%a0%80", "9" * 2_500, "99999999999999999999", "%D9%A3", "%C2%B2", "%F0%9F%98%80%00", "@@@",
     "%0d%0aset-cookie:x=1", '"', "x/versions/99999999999999999999..1", "x/versions/" + "9" * 4_000 + "..1"],
)  # fmt: skip
def test_what_has_a_hostile_name_is_not_found(asking: Asking, name: str) -> None:
    for path in ("/sessions", "/messages", "/tools", "/clients", "/errors", "/api/sessions", "/api/connections",
                 "/api/messages", "/api/events", "/api/tools", "/api/clients", "/api/error-groups"):  # fmt: skip
        answer = asking.answer(f"{path}/{name}")
        assert answer.status_code in (404, 400), f"{path}/{name[:100]}: {answer.status_code}"
        assert "set-cookie" not in answer.headers


def test_files_may_be_kept_and_asked_for_again(asking: Asking) -> None:
    first = asking.answer("/static/app.css")
    again = asking.answer("/static/app.css", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


# ----------------------------------------------------------------------------------------------------- the token


@pytest.mark.parametrize("url", EVERYWHERE)
def test_without_the_token_only_probes_are_answered(guarded: Asking, url: str) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}, {"cookie": "mcp_tap_token=wrong"},
                    {"authorization": f"Basic {TOKEN}"}, {"authorization": "Bearer"}, {"cookie": "\x7f=;;="},
                    {"authorization": f"Bearer {TOKEN}x"}):  # fmt: skip
        answer = guarded.answer(url, headers=headers)
        if url in ("/healthz", "/readyz"):
            assert answer.status_code == 200
            continue
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert TOKEN not in answer.text
        if url.startswith("/api"):
            assert answer.json()["code"] == "unauthorized"
        else:
            assert "?token=" in answer.text


def test_a_wrong_token_in_the_url_is_none(guarded: Asking) -> None:
    assert guarded.answer("/?token=wrong").status_code == 401
    assert guarded.answer(f"/?token={TOKEN}&token=wrong").status_code == 401


@pytest.mark.parametrize("kind", ["Bearer", "bearer"])
def test_a_program_sends_it_in_a_header(guarded: Asking, kind: str) -> None:
    assert guarded.json("/api/sessions", headers={"authorization": f"{kind} {TOKEN}"})["matched"] == 4


def test_a_browser_is_given_a_cookie_and_a_url_without_it(guarded: Asking) -> None:
    async def browse(http: Any) -> None:
        first = await http.get(f"/sessions?q=client:claude&token={TOKEN}&since=1h")
        assert (first.status_code, first.headers["location"]) == (303, "/sessions?q=client%3Aclaude&since=1h")
        cookie = first.headers["set-cookie"].lower()
        for word in ("httponly", "samesite=strict", "path=/"):
            assert word in cookie
        http.cookies.update(first.cookies)
        assert (await http.get("/api/sessions")).status_code == 200

    guarded.within(browse)


@pytest.mark.parametrize("path", ["//evil.example/x", "/\\evil.example", "/%2f%2fevil.example", "/%5cevil.example"])
def test_the_way_back_leads_nowhere_else(guarded: Asking, path: str) -> None:
    answer = guarded.answer(f"http://127.0.0.1:6279{path}?token={TOKEN}")
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/")
    assert not answer.headers["location"].startswith(("//", "/\\"))


def test_tokens_of_any_characters_work(asking: Asking) -> None:
    odd = Asking(asking.path, token='pass wörd;="%&+')
    location = odd.answer("/sessions", params={"token": 'pass wörd;="%&+'})
    assert location.status_code == 303
    cookie = location.headers["set-cookie"].split("; ")[0]
    assert odd.answer("/api/sessions", headers={"cookie": cookie}).status_code == 200


def test_comparing_takes_no_longer_for_what_is_nearly_right(monkeypatch: pytest.MonkeyPatch, guarded: Asking) -> None:
    compared: list[tuple[int, int]] = []

    def watch(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", watch)
    for token in ("", "c", TOKEN[:-1], TOKEN, TOKEN * 100):
        guarded.answer("/api", headers={"authorization": f"Bearer {token}"})
    assert set(compared) == {(32, 32)}


# --------------------------------------------------------------------------------------------------------- probes


def failing() -> Recording:
    return Recording(on=True, failing="/home/somebody/tap.db cannot be written: the disk is full")


async def reaching(proxy: Proxy) -> str:
    return "connected in 1 ms"


@pytest.mark.parametrize("token", ["", TOKEN])
def test_probes_tell_strangers_no_address(asking: Asking, token: str) -> None:
    proxies = (Proxy(upstream=parse_upstream("https://server.example/mcp/key-in-a-path")),)
    probed = Asking(asking.path, token=token, recording=failing, proxies=proxies, reach=reaching)
    told = "".join(probed.answer(url).text for url in ("/healthz", "/readyz"))
    assert "cannot be written" in told
    assert "connected in 1 ms" in told
    for word in ("key-in-a-path", "server.example", "/home/somebody", "127.0.0.1:6278"):
        assert (word in told) == (not token), word


def test_probes_connect_to_a_server_once_in_a_while(asking: Asking) -> None:
    connected: list[Proxy] = []

    async def reach(proxy: Proxy) -> str:
        connected.append(proxy)
        await asyncio.sleep(0.01)
        return "connected in 10 ms"

    async def probe(http: httpx.AsyncClient) -> None:
        answers = await asyncio.gather(*(http.get("/readyz") for _ in range(50)))
        assert {answer.json()["upstream_state"] for answer in answers} == {"connected in 10 ms"}

    Asking(asking.path, reach=reach).within(probe)
    assert len(connected) == 1
