"""The first question of redaction may be wrong in one direction only."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcp_tap.config import Redact
from mcp_tap.model import Codec
from mcp_tap.protocol import jsonrpc, screen
from mcp_tap.protocol.redact import NONE, NOT_WORDS, RULES, WORDS, Masked, Redactor, Secrets
from mcp_tap.protocol.screen import Screen
from tests.protocol.test_redact import LOOKS, bearer, secret_part

if not screen.__file__.endswith(".py"):
    pytest.skip("puts a class of its own in the place of a compiled one", allow_module_level=True)

SCREEN = Screen(WORDS, NOT_WORDS)


class Everything(Screen):
    """Lets everything pass: each token is looked at."""

    def looks(self, data: bytes) -> bool:
        return True

    def keys(self, data: bytes) -> bool:
        return True


def thorough(rules: Redact, max_body: int = 64_000) -> Redactor:
    """Return a redactor that never spares itself the long way."""
    redactor = Redactor(rules, bodies="redacted", max_body=max_body)
    redactor.screen = Everything(WORDS, NOT_WORDS)
    return redactor


RULES_OF = {
    "default": Redact(),
    "more keys": Redact(keys=("pin", "floor_plan", "x", "(a)", "größe"), session_id="hash"),
}
QUICK = {name: Redactor(rules, bodies="redacted", max_body=64_000) for name, rules in RULES_OF.items()}
SLOW = {name: thorough(rules) for name, rules in RULES_OF.items()}


def same(data: bytes, secrets: Secrets = NONE, rules: str = "default") -> Masked | None:
    """Mask a body both ways, compare, and return the answer."""
    quick = QUICK[rules].body(data, secrets)
    assert quick == SLOW[rules].body(data, secrets)
    return quick


# Keys

#: What keys and their surroundings are made of. Ends of words without their beginnings are among it.
PIECES = st.sampled_from(
    [
        *WORDS,
        *NOT_WORDS,
        *(word[-5:] for word in WORDS),
        *(word[-3:] for word in WORDS),
        "a",
        "id",
        "s",
        "progressToken",
    ]
)
SEPARATOR = st.sampled_from(["", "", "", "", "", "-", "_", " ", "\\", "\n", "\t", '"', "'", ":", ".", "é"])
AFTER = st.sampled_from(['":', '\\":', '\\\\\\":', '" :', "':", "' : ", '"\n:', '"-:', '"=', "'=>", '"', ":", "::", ""])


@st.composite
def key(draw: st.DrawFn) -> bytes:
    """Bytes that end in something like a key: words in any case, with anything between their letters and behind."""
    letters = "".join(
        (char.upper() if draw(st.integers(0, 5)) == 0 else char)
        + (draw(SEPARATOR) if draw(st.integers(0, 5)) == 0 else "")
        for char in draw(PIECES)
    )
    return (draw(st.text('{[," aé\\', max_size=3)) + letters + draw(SEPARATOR) + draw(AFTER)).encode()


def named(data: bytes, words: tuple[str, ...] = WORDS, others: tuple[str, ...] = NOT_WORDS) -> bool:
    """Say the same as `Screen.keys`, slowly and plainly."""
    plain = re.sub(rb"[-_ \t\r\n\\]", b"", data.lower().replace(b"'", b'"').replace(b"=", b":"))
    before = [text.decode("latin-1") for text in plain.split(b'":')[:-1]]
    return any(text.endswith(words) and not text.endswith(others) for text in before)


@given(st.lists(key(), max_size=4).map(b"".join))
@example(b'"to-k_EN" : 1')
@example(rb'"{\"api_key\":1}"')
@example(rb'"{\\\"secret\\\":1}"')
@example(b"'password' => 1")
@example(b'"to\\ken":')
def test_no_key_is_missed(data: bytes) -> None:
    assert SCREEN.keys(data) == named(data)


@given(st.lists(key(), max_size=4).map(b"".join), st.lists(st.text("pinx-", min_size=1, max_size=4), max_size=3))
def test_no_key_of_the_settings_is_missed(data: bytes, more: list[str]) -> None:
    words = (*WORDS, *(word.replace("-", "") or "x" for word in more))
    assert Screen(words, NOT_WORDS).keys(data) == named(data, words)


@pytest.mark.parametrize("word", WORDS)
def test_separators_hide_no_word(word: str) -> None:
    for first, second in itertools.combinations(range(1, len(word) + 1), 2):
        for one, other in itertools.product(["-", "_", "", "\\"], ["-", "_-", " "]):
            spelled = word[:first] + one + word[first:second].upper() + other + word[second:]
            for form in ('{{"{}":1}}', '"{{\\"my{}\\" :1}}"', "{{'{}'=>1}}"):
                assert SCREEN.keys(form.format(spelled).encode()), spelled


@pytest.mark.parametrize(
    "data",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"query":"q"}}}',
        b'{"method":"notifications/progress","params":{"progressToken":1,"t":"{\\"progressToken\\":1}","progress":1}}',
        b'{"result":{"content":[{"type":"text","text":"A token, a secret: the key = word"}],"isError":false}}',
        json.dumps(
            {"t": json.dumps({"user_id": 1, "created_at": "2025-11-25T10:11:12Z", "description": "-"})}
        ).encode(),
        b'{"url":"https://example.com/a_b-c?d=e&limit=10","version":"9.1","I":"AI, GPT, SGML","number":-5}',
        "{'größe': '€', 'Begin': '_ - = @ J I G 9 B b'}".encode(),
    ],
)
def test_what_is_usual_is_seen_to_be_harmless_at_once(data: bytes) -> None:
    assert not SCREEN.looks(data)
    assert not SCREEN.keys(data)
    assert SCREEN._key(data) is None  # not even the patterns let it pass


# Looks


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("form", ["{}", "a {} b", '"{}"', "é{}é", "a={}", "A{}"])
def test_no_look_is_missed(look: str, form: str) -> None:
    text = form.format(look)
    found = [rule.why for rule in RULES if rule.pattern.search(text)]
    for spelled in (text, json.dumps(text), json.dumps(json.dumps(text)), json.dumps(text, ensure_ascii=False)):
        assert SCREEN.looks(spelled.encode()) or not found
    if form not in ("A{}", "é{}é"):  # there a word goes on
        assert found
        assert secret_part(look) in text


KNOWN = next(rule for rule in RULES if rule.why == "known key")


@pytest.mark.parametrize("trigger", KNOWN.triggers)
def test_every_known_key_has_its_sign(trigger: str) -> None:
    starts = {
        "akia": "AKIA",
        "asia": "ASIA",
        "aiza": "AIza",
        "sg.": "SG.abcdefghij.",
        "gocspx-": "GOCSPX-",
        "xox": "xoxb-",
    }
    start = starts.get(trigger, f"s{trigger}" if trigger.startswith("k_") else trigger)
    data = f'{{"a":"b {start}{"0123456789ABCDEFGHIJ" * 2}"}}'
    assert KNOWN.pattern.search(data)
    assert SCREEN.looks(data.encode())


@given(st.lists(st.sampled_from([*"JIG9Bb-_@=/\\.", "ey", "sk", "ya2", "earer ", "asic ", ":", "a"])).map("".join))
def test_no_combination_of_signs_is_missed(text: str) -> None:
    found = [rule.why for rule in RULES if rule.pattern.search(text)]
    assert SCREEN.looks(text.encode()) or not found


# The whole


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """JSON with keys and values that are, or look like, something to mask, and strings with other notations."""
    words = st.sampled_from(
        [*WORDS, *NOT_WORDS, "id", "text", "user_id", "description", "properties", "pin", "mcpsessionid"]
    )
    keys = st.one_of(words, words.map(str.title), st.tuples(words, words).map("_".join), st.text(max_size=6))
    texts = st.one_of(
        st.text(max_size=8),
        st.sampled_from(list(LOOKS.values())),
        st.sampled_from(["correct-horse-battery", "token", "{", "[1]", "2025-11-25", "a@b.example", "x=1", "\\", "\n"]),
        st.tuples(keys, st.sampled_from(["=", ": ", '":"', "':'", "' => '", "?a&"]), keys, keys).map("".join),
        st.tuples(keys, keys).map(lambda pair: f"https://example.com/?{pair[0]}={pair[1]}"),
        st.tuples(keys, keys).map(lambda pair: f"{{'{pair[0]}': '{pair[1]}'}} and {{'{pair[0]}' => 1}}"),
    )
    values: st.SearchStrategy[Any] = st.recursive(
        texts | st.integers() | st.none() | st.booleans(),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(keys, inner, max_size=3),
            inner.map(json.dumps),
            inner.map(lambda value: json.dumps(value, ensure_ascii=False)),
        ),
        max_leaves=8,
    )
    text = json.dumps(
        {draw(keys): draw(values)},
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([None, (",", ":")])),
    )
    if draw(st.integers(0, 5)) == 0:
        text = text.replace(draw(st.sampled_from("aek_-=")), f"\\u{ord(draw(st.sampled_from('aek_-='))):04x}")
    data = text.encode("utf-8", "surrogatepass")
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 7)) == 0 else data


@given(bodies(), st.booleans(), st.sampled_from(list(RULES_OF)))
@example(b"{\"text\":\"{'password' => 'hunter2'}\"}", False, "default")
@example(b'{"text":"?passwords=hunter2"}', False, "default")
def test_the_short_way_and_the_long_way_come_to_the_same(data: bytes, with_header: bool, rules: str) -> None:
    same(data, bearer() if with_header else NONE, rules)


@settings(max_examples=40)
@given(bodies(), st.integers(1, 100), st.sampled_from(list(RULES_OF)))
def test_both_ways_cut_alike(data: bytes, limit: int, rules: str) -> None:
    quick = Redactor(RULES_OF[rules], bodies="redacted", max_body=limit).body(data)
    slow = thorough(RULES_OF[rules], limit).body(data)
    whole = SLOW[rules].body(data)
    assert quick is not None
    assert whole is not None
    # Once anything in it matches, the beginning of a body is taken for prose, too: `password: x` in a string.
    if quick != slow and whole.codec is not Codec.TEXT:
        assert quick.masked == whole.masked == 0


@given(bodies(), st.lists(st.tuples(st.integers(0, 500), st.sampled_from(b'"{}[],:\\\x00\xff1e \n')), max_size=3))
@example(b'{"result":\xff}', [])
@example(b'{"result":1}{}', [])
@example(b'{"result":"\xff","error":1}', [])
def test_what_was_read_as_json_rpc_is_json(data: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(b'{"jsonrpc":"2.0","id":1,"result":%b}' % data)
    for at, byte in changes:
        changed[at % len(changed)] = byte
    for envelope, text in jsonrpc.read(bytes(changed)):
        if isinstance(envelope, jsonrpc.Envelope):
            told = QUICK["default"].body(text, is_json=True)
            assert told == QUICK["default"].body(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"password"=>"hunter2", "a"=>1}',
        "['secret' => 'hunter2']",
        "http://x/?passwords=hunter2",
        "refresh_tokens=hunter2",
    ],
)
def test_other_notations_in_a_string_are_found_without_any_other_sign(text: str) -> None:
    masked = same(json.dumps({"text": text}).encode())
    if text[0] in "{[h":
        assert masked is not None
        assert masked.codec is Codec.MASKED
        assert "hunter2" not in masked.text
