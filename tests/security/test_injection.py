"""Words that would be more than words: a line's end in what becomes a header, a quote in what becomes a question."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from mcp_tap import values
from mcp_tap.model import UsageError
from mcp_tap.store.filters import ALIASES, KEYS
from tests.api.asking import Asking, written

TOKEN = "tk-desk-0123456789"


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with Asking(written(tmp_path_factory.mktemp("injection")), token=TOKEN) as made:
        yield made


READERS: dict[str, tuple[Callable[[str], object], str]] = {
    "upstream": (values.parse_upstream, "http://server.example/mcp{}"),
    "upstream's host": (values.parse_upstream, "http://server{}.example/mcp"),
    "upstream's socket": (values.parse_upstream, "http://unix:/run/s:/mcp{}"),
    "host": (values.authority, "server.example{}"),
    "a header's name": (values.header, "x-key{}"),
    "listen": (values.parse_address, "127.0.0.1{}:6278"),
    "token": (values.token, "token{}"),
    "a server's name": (values.word, "shop{}"),
}


@pytest.mark.parametrize("what", READERS)
@pytest.mark.parametrize("end", ["\r\nx: y", "\nx: y", "\r", "\0", "\x0b", "\x85", "\u2028"], ids=repr)
def test_no_setting_ends_a_line(what: str, end: str) -> None:
    reads, form = READERS[what]
    reads(form.format(""))
    with pytest.raises(UsageError):
        reads(form.format(end))


@pytest.mark.parametrize(
    "end", ["%0d%0aset-cookie:%20a=b", "%0a%0aset-cookie: a=b", "%e5%98%8a%e5%98%8dset-cookie:a=b"]
)
def test_no_answer_has_a_header_that_was_asked_for(asking: Asking, end: str) -> None:
    known = {"authorization": f"Bearer {TOKEN}"}
    [session] = asking.json("/api/sessions?limit=1", headers=known)["items"]
    exported = f"/sessions/{session['id']}/export"
    for path, headers in (
        (f"/sessions{end}?token={TOKEN}", {}),
        (f"/sessions?token={TOKEN}&q={end}", {}),
        (f"/sessions?theme=dark{end}", known),
        (f"{exported}.csv{end}", known),
        (f"{exported}.csv?bodies=1{end}", known),
        (f"/sessions/{session['id']}{end}/export.csv", known),
        (f"/tools/{end}", known),
    ):
        answer = asking.answer(path, headers=headers)
        assert not any("a=b" in value.lower() for value in answer.headers.get_list("set-cookie")), path
        assert not any(char in value for value in answer.headers.values() for char in "\r\n\0"), path


INJECTED = (
    "' OR 1=1 --",
    "'; DROP TABLE timeline; --",
    '" OR ""="',
    "%' OR '%'='",
    "x') UNION SELECT 1 --",
    "\\' OR 1=1",
)


@pytest.mark.parametrize("key", sorted({*KEYS, *ALIASES}))
def test_a_quote_asks_for_a_quote(asking: Asking, key: str) -> None:
    """What is not there is not found, whatever stands around it; and nothing is gone afterwards."""
    known = {"authorization": f"Bearer {TOKEN}"}
    for word in INJECTED:
        for path in ("/api/messages", "/api/sessions"):
            answer = asking.answer(f"{path}?{key}={quote(word)}", headers=known)
            assert answer.status_code in (200, 400), answer.text
            if answer.status_code == 200:
                assert answer.json()["items"] == [], f"{path}?{key}={word}"
    with contextlib.closing(sqlite3.connect(asking.path)) as db:
        assert db.execute("SELECT count(*) > 0 FROM timeline").fetchone() == (1,)
