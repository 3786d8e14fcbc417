"""The rules of masking, line by line: what goes, what stays, and that nothing planted is left."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mcp_tap.config import Redact
from mcp_tap.model import Codec
from mcp_tap.protocol.redact import HEADERS, MARK, NONE, NOT_WORDS, RULES, WORDS, Masked, Redactor, Secrets

REDACTOR = Redactor(Redact(), bodies="redacted", max_body=64_000)
KEY = MARK.format("key")
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7x\n-----END RSA PRIVATE KEY-----"


def body(data: bytes, secrets: Secrets = NONE, redactor: Redactor = REDACTOR) -> Masked:
    masked = redactor.body(data, secrets)
    assert masked is not None
    return masked


def masked_json(value: Any, secrets: Secrets = NONE) -> Any:
    masked = body(json.dumps(value).encode(), secrets)
    assert masked.codec in (Codec.AS_SEEN, Codec.MASKED)
    return json.loads(masked.text)


def bearer(token: str = "correct-horse-battery") -> Secrets:
    return REDACTOR.secrets([(b"Authorization", f"Bearer {token}".encode())])


# (a) keys


@pytest.mark.parametrize("word", WORDS)
def test_a_listed_word_masks_the_value(word: str) -> None:
    assert masked_json({"a": 1, word: "x"}) == {"a": 1, word: KEY}


@pytest.mark.parametrize(
    "key",
    [
        "Password", "PASSWORD", "db_password", "user-password", "userPassword", "pass-word", "api_key", "API-Key",
        "X-Api-Key", "apiKey", "client_secret", "accessToken", "access_token", "id_token", "refresh-token",
        "aws_secret_access_key", "Set-Cookie", "proxy-authorization", "private_key", "p_a_s_s_w_o_r_d",
    ],
)  # fmt: skip
def test_a_key_that_ends_with_a_listed_word_masks_the_value(key: str) -> None:
    assert masked_json({key: "x"}) == {key: KEY}


@pytest.mark.parametrize(
    "key",
    [
        *NOT_WORDS, "progressToken", "nextToken", "next_page_token", "cursor", "nextCursor", "maxTokens", "max_tokens",
        "totalTokens", "tokens", "key", "publicKey", "primary_key", "secretary", "tokenize", "authorizationUrl",
        "passwordPolicy", "cookieConsent", "author", "sessionId",
    ],
)  # fmt: skip
def test_a_key_that_only_resembles_one_masks_nothing(key: str) -> None:
    text = json.dumps({key: "value"})
    assert body(text.encode()) == Masked(Codec.AS_SEEN, text, 0)


@pytest.mark.parametrize("value", ["x", "", 1, -1.5e9, True, None, [], {}, [1, [2]], {"a": {"b": ['"}]']}}, "\\", '"'])
@pytest.mark.parametrize("indent", [None, 2])
def test_the_value_goes_whatever_its_type(value: Any, indent: int | None) -> None:
    data = json.dumps({"password": value, "after": [{"token": value}, 2]}, indent=indent).encode()
    masked = body(data)
    assert masked.codec is Codec.MASKED
    assert masked.masked == 2
    assert json.loads(masked.text) == {"password": KEY, "after": [{"token": KEY}, 2]}


def test_what_is_left_is_what_was_on_the_wire() -> None:
    data = b'{ "n" : 123456789012345678901234567890 , "f":1.10, "secret":"x", "e":"\\u00e9\\/", "n":2 }'
    assert body(data).text.encode() == data.replace(b'"x"', f'"{KEY}"'.encode())


def test_a_duplicate_key_hides_nothing() -> None:
    assert "hunter2" not in body(b'{"a":{"password":"hunter2"},"a":1,"password":"hunter2","password":1}').text


@pytest.mark.parametrize(
    "key", [r"p\u0061ssword", r"\u0070\u0061\u0073\u0073\u0077\u006f\u0072\u0064", r"api\u005fkey"]
)
def test_an_escaped_key_is_a_key(key: str) -> None:
    assert body(f'{{"{key}":"hunter2"}}'.encode()).text == f'{{"{key}":"{KEY}"}}'


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"type": ["string", "null"], "description": "yours"},
        {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "Token"},
        {"type": "array", "items": {"type": "string"}},
    ],
)
def test_the_description_of_a_parameter_is_no_value(schema: Any) -> None:
    tool = {"name": "login", "inputSchema": {"type": "object", "properties": {"password": schema, "user": {}}}}
    assert masked_json(tool) == tool


@pytest.mark.parametrize(
    "value",
    [
        "hunter2", ["hunter2"], {"value": "hunter2"}, {"type": "string", "default": "hunter2"}, {"type": "hunter2"},
        {"type": "array", "items": {"const": "hunter2"}}, {"type": {"a": "hunter2"}}, {"items": "hunter2"},
        {"anyOf": 5, "type": "string"},
    ],
)  # fmt: skip
def test_a_value_among_properties_goes(value: Any) -> None:
    assert masked_json({"properties": {"password": value, "b": 1}}) == {"properties": {"password": KEY, "b": 1}}


def test_the_settings_add_keys() -> None:
    redactor = Redactor(Redact(keys=("pin", "floor_plan")), bodies="redacted", max_body=64_000)
    masked = body(b'{"PIN":1234,"floorPlan":{},"password":"x","plan":1}', redactor=redactor)
    assert json.loads(masked.text) == {"PIN": KEY, "floorPlan": KEY, "password": KEY, "plan": 1}


# (b) JSON in strings


def nested(value: Any, levels: int) -> Any:
    for _ in range(levels):
        value = {"text": json.dumps(value, ensure_ascii=False)}
    return value


@pytest.mark.parametrize("levels", [1, 2])
def test_json_in_a_string_is_masked_as_json(levels: int) -> None:
    assert masked_json(nested({"n": 1, "password": ["a", 1]}, levels)) == nested({"n": 1, "password": KEY}, levels)


@pytest.mark.parametrize("levels", [3, 4])
def test_deeper_json_in_strings_is_masked_as_text(levels: int) -> None:
    assert "hunter2" not in json.dumps(masked_json(nested({"password": "hunter2"}, levels)))


def test_a_string_with_braces_that_holds_no_secret_stays() -> None:
    value = nested({"a": [1, 2], "b": "{"}, 2)
    text = json.dumps({"v": value, "w": "[see below]", "secret": 1}, ensure_ascii=False)
    assert json.loads(body(text.encode()).text) == {"v": value, "w": "[see below]", "secret": KEY}


@pytest.mark.parametrize(
    "text",
    [
        'The answer is {"password": "hunter2"}.',
        "input_value={'password': 'hunter2', 'user': 'joe'}, input_type=dict",
        '{"user": "joe", "password": "hunter2',
        "see https://example.com/a?user=joe&api_key=hunter2#x",
    ],
)
def test_an_assignment_inside_a_string_is_masked(text: str) -> None:
    masked = masked_json({"text": text})["text"]
    assert "hunter2" not in masked
    assert text[:4] == masked[:4]
    assert ("joe" in text) == ("joe" in masked)


# (c) looks

LOOKS = {
    "bearer": "Bearer 0123-abc.DEF~x",
    "basic": "Basic " + base64.b64encode(b"joe:hunter2!").decode(),
    "jwt": JWT,
    "encrypted jwt": "eyJhbGciOi.ZZZ.YYY.XXX.WWW",
    "openai": "sk-proj-abcdefghijklmnop1234",
    "stripe": "sk_live_abcdefghijklmnop",
    "github": "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "github oauth": "gho_abcdefghijklmnopqrstuvwxyz0123456789",
    "github fine-grained": "github_pat_11ABCDEFG0abcdefghij_klmnop",
    "slack": "xoxb-1234567890-abcdefghij",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "google": "AIzaSyA-abcdefghijklmnopqrstuvwxyz01234",
    "google oauth": "ya29.a0AfH6SMBabcdefghijkl",
    "gitlab": "glpat-abcdefghijklmnopqrst",
    "npm": "npm_abcdefghijklmnopqrstuvwxyz0123456789",
    "hugging face": "hf_abcdefghijklmnopqrstuvwxyz",
    "pypi": "pypi-AgEIcHlwaS5vcmcCJDU2",
    "sendgrid": "SG.abcdefghijklmnop.qrstuvwxyz0123456789",
    "groq": "gsk_abcdefghijklmnopqrstuvwxyz",
    "pem": PEM,
    "pem without its end": PEM[:60],
    "userinfo": "https://joe:hunter2@example.com/",
}


def secret_part(look: str) -> str:
    if "://" in look:
        return "joe:hunter2"
    return look.split(" ", 1)[1] if look.startswith(("Bearer", "Basic")) else look


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("form", ["{}", "use {} now", 'say "{}"', "one\n{}\ntwo", "k={}", "({})"])
def test_a_credential_is_told_by_its_looks(look: str, form: str) -> None:
    text = form.format(look)
    secret = secret_part(look)
    shown = json.dumps(masked_json({"content": [{"type": "text", "text": text}], "n": 1}))
    assert secret not in shown
    assert json.dumps(secret)[1:-1] not in shown
    assert "(redacted: " in shown
    assert secret not in REDACTOR.text(text)
    assert secret not in json.dumps(masked_json({"text": json.dumps({"inner": text})}))
    assert secret not in json.dumps(masked_json({text: 1}))
    assert secret not in body(f"no json: {text}".encode()).text


def test_letters_alone_are_a_credential_where_nothing_else_stands() -> None:
    mark = MARK.format("bearer")
    assert masked_json(["Bearer topsecret", "it is Bearer topsecret"]) == [f"Bearer {mark}", "it is Bearer topsecret"]
    assert REDACTOR.text("Authorization: Bearer topsecret") == f"Authorization: Bearer {mark}"


@pytest.mark.parametrize(
    "text",
    [
        "bearer token", "use Bearer authentication", "the bearer of this plugin, and others", "basic authentication",
        "Basic instructions", 'Bearer realm="x", error="invalid_token"', "eyJpZCI6MX0=", "task-force-of-the-company-x",
        "sk-learn", "AKIA", "mail joe@example.com", "https://example.com/@joe", "https://example.com/?mail=a@b.c",
        "http://localhost:9000/mcp", "-----", "ghp_", "keyhole=1", "?next_token=abc&max_tokens=5", "2 + 2 = 4",
        "SGML", "npm_config_cache", "hf_hub",
    ],
)  # fmt: skip
def test_what_only_resembles_a_credential_stays(text: str) -> None:
    assert masked_json({"text": text, "secret": 0}) == {"text": text, "secret": KEY}
    assert REDACTOR.text(text) == text


def test_every_rule_has_its_row() -> None:
    found = {rule.why for rule in RULES for look in LOOKS.values() if rule.pattern.search(look)}
    assert found == {rule.why for rule in RULES}


def test_the_settings_add_patterns() -> None:
    patterns = (r"(?i)acme_([0-9a-f])\1{3}", r"^\d{4}$")
    redactor = Redactor(Redact(patterns=patterns), bodies="redacted", max_body=64_000)
    masked = body(b'{"a":"is ACME_aaaa.","b":"1234","c":"12345"}', redactor=redactor)
    mark = MARK.format("pattern")
    assert json.loads(masked.text) == {"a": f"is {mark}.", "b": mark, "c": "12345"}


# (d) credentials of the headers


@pytest.mark.parametrize(
    ("name", "value", "credentials"),
    [
        ("Authorization", "Bearer correct-horse", ["correct-horse"]),
        ("authorization", "correct-horse", ["correct-horse"]),
        ("Authorization", "Basic " + base64.b64encode(b"joe:battery-staple").decode(), ["battery-staple"]),
        ("Authorization", "Basic " + base64.b64encode(b"key-as-the-user:").decode(), ["key-as-the-user"]),
        ("Proxy-Authorization", "Digest correct-horse", ["correct-horse"]),
        ("Cookie", "theme=dark; sid=correct-horse; b=battery-staple", ["correct-horse", "battery-staple"]),
        ("Set-Cookie", 'sid="correct-horse"; Path=/somewhere/else', ["correct-horse"]),
        *((name, "correct-horse", ["correct-horse"]) for name in HEADERS if "cookie" not in name),
    ],
)
def test_a_credential_of_a_header_goes_wherever_it_recurs(name: str, value: str, credentials: list[str]) -> None:
    secrets = REDACTOR.secrets([(b"Accept", b"application/json"), (name.encode(), value.encode())])
    for credential in credentials:
        for form in (credential, f"echo {credential}!", json.dumps({"a": credential}), f"https://x/{credential}/y"):
            shown = json.dumps(masked_json({"text": form, credential: [form]}, secrets))
            assert credential not in shown
            assert REDACTOR.text(form, secrets) != form
            assert credential not in body(f"text {form}".encode(), secrets).text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"Accept", b"application/json"), (b"Mcp-Session-Id", b"0123456789abcdef"), (b"Authorization", b"Bearer abc"),
        (b"Authorization", b"Bearer undefined"), (b"Cookie", b"theme=dark"), (b"Authorization", b""),
    ],
)  # fmt: skip
def test_other_headers_hold_no_credential(name: bytes, value: bytes) -> None:
    assert REDACTOR.secrets([(name, value)]) == NONE or not REDACTOR.secrets([(name, value)]).values


def test_the_settings_add_headers_and_the_session_id() -> None:
    redactor = Redactor(Redact(headers=("x-acme",), session_id="hash"), bodies="redacted", max_body=64_000)
    secrets = redactor.secrets([(b"X-Acme", b"correct-horse"), (b"mcp-session-id", b"0123456789abcdef")])
    masked = body(b'{"a":"correct-horse","b":"0123456789abcdef","sessionId":"other"}', secrets, redactor)
    assert set(json.loads(masked.text).values()) == {MARK.format("header"), KEY}


@pytest.mark.parametrize("token", ['with"quote\\and/slash', "plus+and=equals", "ümlaut-geheim", "a/b/c/d/e/f"])
def test_a_credential_is_found_in_each_spelling(token: str) -> None:
    secrets = bearer(token)
    ascii_escapes = "".join(f"\\u{ord(char):04x}" for char in token)
    for spelled in (
        json.dumps(token), json.dumps(token, ensure_ascii=False), json.dumps(token).replace("/", "\\/"),
        f'"{ascii_escapes}"', json.dumps(json.dumps({"a": token})),
        json.dumps(json.dumps({"a": json.dumps([token])})),
    ):  # fmt: skip
        masked = body(f'{{"a":{spelled}}}'.encode(), secrets)
        assert masked.masked == 1, spelled
        text = json.loads(masked.text)["a"]
        assert token not in text
        assert token not in text.replace("\\", "")


# Bodies


def test_modes() -> None:
    data = b'{"password":"hunter2","key":"sk-abcdefghijklmnopqrst","echo":"correct-horse-battery"}'
    assert Redactor(Redact(), bodies="none", max_body=100).body(data) is None
    full = Redactor(Redact(), bodies="full", max_body=64_000)
    assert body(data, redactor=full) == Masked(Codec.AS_SEEN, data.decode(), 0)
    masked = body(data, bearer(), full)
    assert (masked.codec, masked.masked) == (Codec.MASKED, 1)
    assert json.loads(masked.text) == {**json.loads(data), "echo": MARK.format("header")}
    assert "hunter2" in body(b"password=hunter2&x=correct-horse-battery", bearer(), full).text
    assert "horse" not in body(b"password=hunter2&x=correct-horse-battery", bearer(), full).text


@pytest.mark.parametrize(
    "data",
    [
        b'{"password": "hunter2', b'{"a":1,"token":hunter2}', b"{'password': 'hunter2'}", b"password=hunter2&a=1",
        b"grant_type=x&client_secret=hunter2", b"Authorization: hunter2 hunter2\r\nA: 1",
        b'{"a":NaN,"secret":"hunter2"}',
        b'{"secret":["a","hunter2"', b'{"secret":{"a":"hunter2"},', b'"{\\"password\\":\\"hunter2', b"api_key: hunter2",
        b'\xff{"password":"hunter2"}', '{"password":"hunter2"}'.encode("utf-16"),
        '{"password":"hunter2"}'.encode("utf-32-le"),
        b'{"password":"hunter2\\', b'{"a":"\\ud800","password":"hunter2"}', b'{"x":"\\q","password":"hunter2"}',
        b"[" * 5000 + b'{"password":"hunter2"}', b'data: {"password":"hunter2"}\n\n', b'{"a":"b" "password":"hunter2"}',
        b'{password:"hunter2"}', b'<input name="x" password="hunter2">', b"http://joe:hunter2@example.com/",
    ],
)  # fmt: skip
def test_what_is_no_json_is_masked_as_text(data: bytes) -> None:
    masked = body(data)
    assert masked.codec is Codec.TEXT
    assert masked.masked
    assert "hunter2" not in masked.text
    masked.text.encode()


@pytest.mark.parametrize("data", [b"", b"Not Found", b"<h1>502</h1>", b"\xff\xfe\x00", b"{", b'{"a":', b"\x00\x01"])
def test_what_is_no_json_and_no_secret_stays(data: bytes) -> None:
    masked = body(data)
    assert (masked.codec, masked.masked) == (Codec.TEXT, 0)
    if data.isascii() and b"\0" not in data:
        assert masked.text.encode() == data


@pytest.mark.parametrize("limit", range(1, 60))
def test_a_cut_leaves_neither_half_a_character_nor_half_a_secret(limit: int) -> None:
    redactor = Redactor(Redact(), bodies="redacted", max_body=limit)
    data = '{"ü":"€uro","k":"AKIAIOSFODNN7EXAMPLE","password":"hunter2hunter2"}'.encode()
    masked = body(data, redactor=redactor)
    assert masked.codec is Codec.CUT
    assert "\\x" not in masked.text
    assert "AKIA" not in masked.text
    assert "hun" not in masked.text
    assert data.startswith(masked.text.partition("••••")[0].encode().rstrip(b'"'))


@pytest.mark.parametrize("secret", [PEM, JWT, "sk-" + "a1" * 400, "correct-horse-battery"])
@pytest.mark.parametrize("before", range(0, 40, 3))
def test_a_secret_across_the_cut_is_known_as_one(secret: str, before: int) -> None:
    redactor = Redactor(Redact(), bodies="redacted", max_body=100)
    data = json.dumps({"a": "x" * (60 + before) + " " + secret, "b": "y" * 5000}).encode()
    text = body(data, bearer(), redactor).text
    assert secret[:12] not in text


@pytest.mark.parametrize(
    "end", ["sk-abc", "ghp_ab", "eyJhbGci", "Bearer abc", "https://joe:hunt", "AKIA12", "correct-hor", "glpat-a"]
)
def test_the_beginning_of_a_secret_at_the_end_of_a_broken_body_goes(end: str) -> None:
    masked = body(f'{{"a":"{end}'.encode(), bearer())
    assert masked.masked == 1
    assert not masked.text.endswith(end)


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/mcp", "/mcp"),
        ("/mcp?api_key=hunter2&sessionId=abc", "/mcp?api_key=••••&sessionId=••••"),
        ("/mcp?hunter2", "/mcp?••••"),
        ("/mcp?", "/mcp?••••"),
        ("/a?b=c?d=e", "/a?b=••••"),
        ("http://joe:hunter2@example.com/mcp", f"http://{MARK.format('url userinfo')}@example.com/mcp"),
        ("/mcp/sk-abcdefghijklmnopqrst", f"/mcp/{MARK.format('known key')}"),
        ("*", "*"),
    ],
)
def test_targets(target: str, shown: str) -> None:
    assert REDACTOR.target(target) == shown


def test_text_leaves_the_words_of_prose_and_of_schemas() -> None:
    for text in ('{"properties":{"password":{"type":"string"}}}', "invalid token: expected ]", '{"cookie": true}'):
        assert REDACTOR.text(text) == text
    assert REDACTOR.text("input_value={'password': 'hunter2'}") == f"input_value={{'password': '{KEY}'}}"


# Whatever comes

SECRET = "Xq7-planted_Zw9"
PLAIN_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def respelled(draw: st.DrawFn, word: str) -> str:
    spelled = "".join(
        (char.upper() if draw(st.booleans()) else char) + draw(st.sampled_from(["", "", "", "-", "_"])) for char in word
    )
    return draw(st.text("abcXYZ_-. ", max_size=5)) + spelled


@st.composite
def planted(draw: st.DrawFn) -> tuple[bytes, Secrets]:
    """A body with one secret in it: by its key, by its looks or by a header, at any place, in strings in strings."""
    ways = [("key", SECRET), ("looks", "ghp_" + SECRET.replace("-", "").replace("_", "") * 2), ("header", SECRET)]
    way, secret = draw(st.sampled_from(ways))
    secrets = bearer(SECRET) if way == "header" else NONE
    value: Any = draw(st.sampled_from([secret, f" {secret}", [secret], {"v": secret}, [[{"v": [secret]}]]]))
    if way == "key":
        value = {respelled(draw, draw(st.sampled_from(WORDS))): value}
    elif draw(st.booleans()):
        value = {secret: draw(PLAIN_JSON)}
    levels = 0
    for _ in range(draw(st.integers(0, 5))):
        match draw(st.sampled_from(["list", "dict", "string"])):
            case "list":
                value = [draw(PLAIN_JSON), value, draw(PLAIN_JSON)]
            case "dict":
                value = {**draw(st.dictionaries(st.text(max_size=8), PLAIN_JSON, max_size=3)), "k": value}
            case _ if levels < 2:
                value, levels = json.dumps(value, ensure_ascii=draw(st.booleans())), levels + 1
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    if draw(st.booleans()):
        text = text.replace("a", "\\u0061")
    data = text.encode("utf-8", "surrogatepass")
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 3)) == 0 else data, secrets


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first text in a fresh checkout takes a second
@given(planted())
def test_nothing_planted_is_left(case: tuple[bytes, Secrets]) -> None:
    data, secrets = case
    masked = body(data, secrets)
    masked.text.encode()
    assert "planted" not in masked.text.replace("\\u0061", "a")
    if masked.codec is Codec.MASKED:
        orjson.loads(masked.text)


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_nothing_escapes(data: bytes) -> None:
    for limit in (5, 1000):
        redactor = Redactor(Redact(), bodies="redacted", max_body=limit)
        body(data, bearer(), redactor).text.encode()
    text = data.decode("utf-8", "replace")
    REDACTOR.text(text).encode()
    REDACTOR.target(text).encode()
    REDACTOR.secrets([(name.encode(), data) for name in HEADERS])


@given(PLAIN_JSON, st.booleans())
def test_what_holds_no_secret_is_the_bytes_seen(value: Any, ensure_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=ensure_ascii)
    plain = text.lower().replace("-", "").replace("_", "")
    assume(not any(word in plain for word in WORDS) and "\\u" not in text)
    assert body(text.encode()) == Masked(Codec.AS_SEEN, text, 0)


@pytest.mark.parametrize(
    "piece",
    [
        b"\\", b'"', b"[", b'{"password":', b'{"properties":{"password":', b'"password":"', b'\\"password\\":\\"',
        b"sk-", b"eyJ", b" eyJ.", b"bearer ", b"basic ", b"://", b"://a@", b"-----BEGIN A-----", b"?a=", b"password ",
        b"'a'", b" ", b"\\u0061", b"SG.", b"-", b"a", b'{"a":"', b"\xff", b"\x00", b"=", b"xox-",
    ],
)  # fmt: skip
def test_what_repeats_itself_takes_no_more_time_and_room_than_the_rest(piece: bytes) -> None:
    # What looks at its beginning again for each of its parts would take minutes here.
    for data in (piece * (64_000 // len(piece)), b'{"password":1,"a":"' + piece * (60_000 // len(piece)) + b'"}'):
        assert len(body(data, bearer()).text) < 8 * len(data)


# The document


def test_the_document_names_what_is_masked() -> None:
    document = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text()
    for name in (*WORDS, *NOT_WORDS, *HEADERS, *(rule.why for rule in RULES)):
        assert f"`{name}`" in document, name


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("no: password=hunter22", "no: password=•••• (redacted: key)"),
        ("host=db,password=hunter22;port=1", "host=db,password=•••• (redacted: key);port=1"),
        ("cannot read b'password=hunter22&x=1'", "cannot read b'password=•••• (redacted: key)&x=1'"),
        ("f(token={token=hunter22})", "f(token={token=•••• (redacted: key)})"),
        ("invalid token: it has expired", "invalid token: it has expired"),
        ("token == expected", "token == expected"),
    ],
)
def test_an_error_text_that_assigns_a_secret(text: str, masked: str) -> None:
    assert REDACTOR.text(text) == masked
