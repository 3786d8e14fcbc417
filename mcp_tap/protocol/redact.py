"""What is masked before anything is stored, shown or shipped.

The rules:

(a) the value of a JSON member whose key is, or ends with, a listed word, whatever its type;
(b) the same inside a string that holds JSON itself, two levels deep, because tool results carry JSON as text;
(c) credentials that can be told by their looks, in every string, key, error text, name and query;
(d) every value that was a credential in a header of the same exchange, wherever it recurs.

A body is not parsed into a tree and written anew. Its tokens are looked at where they stand, and only what has to go
is replaced: digits, duplicate keys, spaces and the depth of what is left are those of the wire, a body that was cut or
is malformed goes the same way as a whole one, and nothing is lost that need not be. What is no JSON also gets (a) in
the spellings of other notations: ``'password': 'x'``, ``password=x``, ``Password: x``.

Almost no body holds a secret, so the first question is a cheap one: whether anything in the bytes can match at all.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import quote

import msgspec

from mcp_tap.model import Codec
from mcp_tap.protocol.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mcp_tap.config import Redact

MARK: Final = "•••• (redacted: {})"

#: Rule (a): ends of keys, in lower case and without - and _. `tokens` alone counts tokens and is no secret.
WORDS: Final = (
    "password", "passwords", "passwd", "passphrase", "passcode", "secret", "secrets", "token", "accesstokens",
    "refreshtokens", "apikey", "apikeys", "authkey", "accesskey", "privatekey", "secretkey", "signingkey",
    "encryptionkey", "authorization", "cookie", "cookies", "credential", "credentials", "connectionstring",
    "codeverifier", "clientassertion",
)  # fmt: skip

#: Ends of keys that end with a listed word and are none: a place in a list, or in a piece of work (MCP: progressToken).
NOT_WORDS: Final = ("progresstoken", "nexttoken", "pagetoken", "continuationtoken", "synctoken")

#: Rule (d): headers whose values are credentials.
HEADERS: Final = (
    "authorization", "proxy-authorization", "cookie", "set-cookie", "dpop", "x-api-key", "api-key", "x-auth-token",
    "x-access-token", "x-goog-api-key", "x-amz-security-token", "private-token",
)  # fmt: skip

#: Shorter values recur by chance, and would take half of a text with them.
_LEAST: Final = 6
#: A cookie is often only a preference, so a word of its length has to be a rarer one.
_LEAST_COOKIE: Final = 8
#: What clients send where a variable was not filled in.
_NO_SECRETS: Final = frozenset({"undefined", "[object object]", "bearer", "session", "disabled", "enabled", "accepted"})

#: How far beyond the cut is looked, so that a secret that lies across it is known as one.
_MARGIN: Final = 4096

#: Levels of rule (b).
_LEVELS: Final = 2

#: How many keys are remembered as listed or not: clients choose keys, so their number needs a bound.
_KEYS_KEPT: Final = 4096


class Masked(msgspec.Struct, frozen=True, gc=False):
    """A body as it may be stored."""

    codec: Codec
    text: str
    masked: int  # how many values were replaced


class Secrets(NamedTuple):
    """The credentials of one exchange, in each spelling in which they may recur, the longest first."""

    values: tuple[str, ...] = ()
    needles: tuple[bytes, ...] = ()


NONE: Final = Secrets()

_AS_SEEN: Final = Codec.AS_SEEN


class Span(NamedTuple):
    """A part of a text, and what stands there instead."""

    start: int
    end: int
    text: str


class Rule(NamedTuple):
    """One line of rule (c). A text without any of the triggers, in lower case, cannot match."""

    why: str
    pattern: re.Pattern[str]
    triggers: tuple[str, ...] = ()
    group: int = 1  # what of the match goes


# A pattern starts with a literal or looks behind itself, so that no text makes it start over again and again.
_KNOWN: Final = (
    r"sk-[\w-]{16,}|[sr]k_(?:live|test)_\w{10,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|xox[a-z]-[\w-]{10,}|"
    r"xapp-[\w-]{10,}|(?:AKIA|ASIA)[0-9A-Z]{12,}|AIza[\w-]{20,}|ya29\.[\w-]{16,}|glpat-[\w-]{16,}|npm_[A-Za-z0-9]{20,}|"
    r"hf_[A-Za-z0-9]{16,}|pypi-[\w-]{20,}|SG\.[\w-]{10,}\.[\w-]{10,}|GOCSPX-[\w-]{16,}|dop_v1_\w{20,}|lin_api_\w{16,}|"
    r"gsk_\w{20,}|xai-[\w-]{20,}|shpat_\w{20,}|whsec_[\w+/=-]{16,}|tvly-[\w-]{16,}|pplx-[\w-]{16,}"
)
_KNOWN_TRIGGERS: Final = (
    "sk-", "k_live_", "k_test_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "xox", "xapp-", "akia", "asia",
    "aiza", "ya29.", "glpat-", "npm_", "hf_", "pypi-", "sg.", "gocspx-", "dop_v1_", "lin_api_", "gsk_", "xai-",
    "shpat_", "whsec_", "tvly-", "pplx-",
)  # fmt: skip
#: What follows the scheme's name in prose and in challenges, where no credential stands (RFC 6750 §3).
_PROSE: Final = r"(?!(?:tokens?|auth\w*|credentials?|schemes?|realm|error\w*|scope|resource_metadata|methods?)\b)"
RULES: Final = (
    Rule(
        "pem",
        re.compile(r"(?s)(-----BEGIN [A-Z0-9 ]{1,64}-----.*?(?:-----END [A-Z0-9 ]{1,64}-----|\Z))"),
        ("-----begin ",),
    ),
    Rule("url userinfo", re.compile(r"://([^\s/?#\"'<>]+)@"), ("@",)),
    Rule(
        "bearer",
        re.compile(
            rf"(?i:\bbearer)\s{{1,8}}(?i:{_PROSE})((?=[a-z.]*[A-Z0-9_~+/-])[\w.~+/-]{{6,}}=*|[a-z]{{20,}}"
            r"|(?<=\A[Bb]earer )\S+\Z|(?<=uthorization: [Bb]earer )\S+)"
        ),
        ("bearer",),
    ),
    Rule("basic", re.compile(r"(?i:\bbasic)\s{1,8}([A-Za-z0-9+/]{6,}={0,2})"), ("basic",)),
    Rule("jwt", re.compile(r"(?<![A-Za-z0-9_-])(eyJ[\w-]{5,}(?:\.[\w-]+){1,4}\.?)"), ("eyj",)),
    Rule("known key", re.compile(rf"(?<![A-Za-z0-9])({_KNOWN})"), _KNOWN_TRIGGERS),
)

#: The beginning of a credential at the very end of a text that was cut there.
_EDGE: Final = re.compile(
    r"(?:://(?=[^\s/@]*:)|(?i:\b(?:bearer|basic)\s{1,8})|(?<![A-Za-z0-9])(?=eyJ|[sr]k[-_]|gh[pousr]_|github_pat_|xox.-|"
    r"xapp-|AKIA|ASIA|AIza|ya29|glpat-|npm_|hf_|pypi-|SG\.|GOCSPX|dop_v1|lin_api|gsk_|xai-|shpat|whsec|tvly-|pplx-))"
    r"([^\s\"'@]+)\Z"
)
_EDGE_LENGTH: Final = 512

#: A letter or a sign of ASCII that is written as an escape hides a word from every search for it.
_ESCAPED: Final = re.compile(r"\\u00[2-7]")

_TOKEN: Final = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)("?)(?:\s*(:))?|[{}\[\]]', re.DOTALL)
_VALUE: Final = re.compile(r'\s*(?:([{\[])|(")|([^\s,{}\[\]"]+))')
_JSON_START: Final = re.compile(rb'\s*(?:\[\s*)?\{\s*"')
_JSON_TEXT: Final = re.compile(r"\s*[{\[]")
#: The notations of (a) outside of JSON: a quoted key, a parameter of a URL or a form, a bare key.
_QUOTED_KEY: Final = re.compile(r"""(?<!\\)(\\*["'])([\w .$-]{1,80})\1\s{0,8}(?::|=>?)\s{0,8}""")
_PARAMETER: Final = re.compile(
    r"""(?<![\w.%$\[\]-])(?:(?<=[?&;])|(?=[\w.%$\[\]-]{1,80}=[^\s&"'<>#\\]+&))"""  # a form's first stands before a &
    r"""([\w.%$\[\]-]{1,80})=([^\s&"'<>#\\]+)"""
)
_ASSIGNED: Final = re.compile(r"""(?<![\w.%$-])([\w.%$-]{1,80})=([^\s&"'<>#\\(){}\[\],;]+)""")
_BARE_KEY: Final = re.compile(r"""(?<![\w-])([\w-]{3,80})\s{0,8}[:=]\s{0,8}(?=[^\s:=])""")
_OPENING: Final = re.compile(r"""(\\*)(["'])""")
_BARE_VALUE: Final = re.compile(r"""[^\s,;&"'<>{}\[\]\\]+""")
_LINE: Final = re.compile(r"""[^\r\n"']+""")

#: A member below `properties` that has nothing but these is the description of a parameter and holds no value of it.
_SCHEMA: Final = frozenset({
    "type", "title", "description", "format", "minLength", "maxLength", "pattern", "writeOnly", "readOnly",
    "deprecated", "nullable", "items", "anyOf", "oneOf", "allOf", "$ref", "minItems", "maxItems", "uniqueItems",
})  # fmt: skip
_SCHEMA_TYPES: Final = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})

_SKIP: Final = msgspec.json.Decoder(msgspec.Raw)
_SCHEMES: Final = re.compile(r"\A[A-Za-z][\w-]{1,20} +(\S.*)\Z", re.DOTALL)


class Redactor:
    """The rules with the settings' additions, compiled once. Pure: the same bytes give the same answer.

    ``bodies`` and ``max_body`` (bytes) are those of the settings. With ``"full"`` only rule (d) holds for bodies.
    """

    def __init__(self, rules: Redact, *, bodies: Literal["none", "redacted", "full"], max_body: int) -> None:
        self._none, self._full = bodies == "none", bodies == "full"
        self._max_body = max_body
        ids = ("mcpsessionid", "sessionid") if rules.session_id == "hash" else ()
        self._words = (*WORDS, *ids, *map(_plain_key, rules.keys))
        self.screen = Screen(self._words, NOT_WORDS)
        self._headers = frozenset({*HEADERS, *rules.headers, *(("mcp-session-id",) if ids else ())})
        self.patterns = [Rule("pattern", re.compile(pattern), group=0) for pattern in rules.patterns]
        self._has_patterns = bool(self.patterns)
        #: Whether rule (a) names a key. The same few keys come again and again.
        self.lists = lru_cache(_KEYS_KEPT)(self._lists)

    # Three kinds of text

    def body(self, data: bytes, secrets: Secrets = NONE, *, is_json: bool = False) -> Masked | None:
        """Return a body as it may be stored, or None where none is kept. ``is_json``: it is known to be.

        What matched nothing is the very text that was on the wire; bytes that are no UTF-8 stand in it in hexadecimal.
        """
        if self._none:
            return None
        if len(data) > self._max_body:
            return self._cut(data, secrets)
        is_json = is_json or _is_json(data)
        if is_json and not self._may_match(data, secrets, full=self._full):
            try:
                return Masked(_AS_SEEN, data.decode(), 0)
            except UnicodeDecodeError:
                is_json = False
        text = _decoded(data)
        look = _Look(self, text, secrets, full=self._full, is_json=is_json)
        masked, count = _replaced(text, look.json(text, 0) if is_json else look.text(text), len(text))
        return Masked(Codec.TEXT if not is_json else Codec.MASKED if count else _AS_SEEN, masked, count)

    def _cut(self, data: bytes, secrets: Secrets) -> Masked:
        """Return the beginning of a long body."""
        kept, data = _whole_characters(data, self._max_body), data[: self._max_body + _MARGIN]
        if _JSON_START.match(data) and not self._may_match(data, secrets, full=self._full):
            return Masked(Codec.CUT, _decoded(kept), 0)
        text = _decoded(data)
        look = _Look(self, text, secrets, full=self._full, is_json=False)
        return Masked(Codec.CUT, *_replaced(text, look.text(text), len(_decoded(kept))))

    def text(self, text: str, secrets: Secrets = NONE) -> str:
        """Return an error text, a name or another piece of text as it may be stored: rules (c) and (d).

        Of (a) only what stands in quotes or behind an equals sign counts here: error texts quote the input, and prose
        is full of the words.
        """
        if not self._may_match(text.encode("utf-8", "surrogatepass"), secrets, full=False):
            return text
        look = _Look(self, text, secrets, full=False, is_json=True)
        assigned = (match.span(2) for match in _ASSIGNED.finditer(text) if self._lists(match[1])) if "=" in text else ()
        spans = [*look.credentials(text), *look.assignments(text, objects=False)]
        return _replaced(text, [*spans, *(Span(*span, _KEY_MARK) for span in assigned)], len(text))[0]

    def target(self, request_target: str) -> str:
        """Return a request target (RFC 9112 §3.2) without the values of its query and without userinfo."""
        path, question, query = request_target.partition("?")
        path = self.text(path)
        if not question:
            return path
        names = (part.partition("=")[0] if "=" in part else "" for part in query.split("&"))
        return f"{path}?{'&'.join(f'{self.text(name)}=••••' if name else '••••' for name in names)}"

    def secrets(self, headers: Iterable[tuple[bytes, bytes]]) -> Secrets:
        """Return the credentials in the headers of an exchange, for rule (d)."""
        found: set[str] = set()
        for raw_name, raw_value in headers:
            name = raw_name.lower().decode("latin-1")
            if name in self._headers:
                found.update(_credentials(name, _decoded(raw_value).strip()))
        return _spelled(found) if found else NONE

    # The first question

    def _may_match(self, data: bytes, secrets: Secrets, *, full: bool) -> bool:
        """Whether anything in JSON, or in a short text, can match: false is certain, true is not."""
        if secrets.needles and _recurs(data, secrets.needles, escaped=full):
            return True
        return not full and (self._has_patterns or self.screen.may_match(data))

    def _lists(self, key: str) -> bool:
        plain = _plain_key(key)
        return plain.endswith(self._words) and not plain.endswith(NOT_WORDS)


class _Look:
    """One look at one text: which rules can match in it at all is found out once, not for each of its strings."""

    def __init__(self, redactor: Redactor, text: str, secrets: Secrets, *, full: bool, is_json: bool) -> None:
        escaped = _ESCAPED.search(text) is not None
        self.lists = redactor.lists
        self.values = secrets.values if escaped or any(value in text for value in secrets.values) else ()
        if not self.values and secrets.values and not is_json:
            self.values = secrets.values  # the end may hold the beginning of one
        self.rules: list[Rule] = []
        self.keys = self.parameters = False
        self.redacting = not full
        if not full:
            data = text.encode("utf-8", "surrogatepass")
            if not is_json or redactor.screen.looks(data):
                low = text.lower()
                self.rules = [rule for rule in RULES if escaped or any(trigger in low for trigger in rule.triggers)]
            self.rules += redactor.patterns
            self.keys = escaped or not is_json or redactor.screen.keys(data)
            self.parameters = escaped or "=" in text

    def json(self, text: str, level: int) -> list[Span]:
        """Return what has to go from a JSON text, malformed and unfinished ones included.

        One pass over its strings and brackets, with a stack instead of recursion: depth costs nothing.
        """
        spans: list[Span] = []
        opened: list[str] = []  # the key of each open object and array
        key = ""  # the last key, until a value follows
        masked = False  # the next value goes
        hidden, hidden_from = 0, 0  # how deep inside of an object or array that goes, and where it began
        for token in _TOKEN.finditer(text):
            start = token.start()
            match text[start]:
                case '"' if not hidden:
                    end = token.end(2)
                    if not token[3]:
                        if masked:
                            spans.append(Span(start, end, _JSON_MARK))
                        elif span := self._string(start, end, token[1], level, lost=not token[2]):
                            spans.append(span)
                        masked, key = False, ""
                        continue
                    key, masked = _unescaped(token[1]), False
                    if span := self._string(start, end, token[1], _LEVELS):
                        spans.append(span)
                    if not self.keys or not self.lists(key):
                        continue
                    value = _VALUE.match(text, token.end())
                    if value is None:
                        continue
                    if value[3]:
                        spans.append(Span(value.start(3), value.end(3), _JSON_MARK))
                    else:
                        in_properties = bool(opened) and opened[-1] == "properties"
                        masked = not (value[1] == "{" and in_properties and _is_schema(text, value.start(1)))
                case "{" | "[":
                    if hidden or masked:
                        hidden_from = hidden_from if hidden else start
                        hidden, masked = hidden + 1, False
                    else:
                        opened.append(key)
                    key = ""
                case "}" | "]":
                    if hidden:
                        hidden -= 1
                        if not hidden:
                            spans.append(Span(hidden_from, token.end(), _JSON_MARK))
                    elif opened:
                        opened.pop()
                    masked, key = False, ""
        if hidden:
            spans.append(Span(hidden_from, len(text), _JSON_MARK))
        return spans

    def text(self, text: str) -> list[Span]:
        """Return what has to go from a text that is no JSON, or no longer."""
        spans = [*self.json(text, 0), *self.credentials(text)]
        if self.redacting:
            spans += [*self.assignments(text, objects=True), *self._bare_assignments(text)]
        return [*spans, *self._cut_header(text)]

    def credentials(self, text: str) -> Iterator[Span]:
        """Yield what rules (c) and (d) find in a text."""
        for value in self.values:
            at = text.find(value)
            while at >= 0:
                yield Span(at, at + len(value), _HEADER_MARK)
                at = text.find(value, at + len(value))
        for why, pattern, _, group in self.rules:
            for match in pattern.finditer(text):
                start, end = match.span(group)
                if end > start and (why != "basic" or _is_basic(match[1])):
                    yield Span(start, end, MARK.format(why))

    def assignments(self, text: str, *, objects: bool) -> Iterator[Span]:
        """Yield what rule (a) finds in text: the value of a quoted key, of a parameter of a URL or of a form."""
        if self.parameters and "=" in text:
            for parameter in _PARAMETER.finditer(text):
                if self.lists(parameter[1]):
                    yield Span(*parameter.span(2), _KEY_MARK)
        if not self.keys or not ('"' in text or "'" in text):
            return
        at = 0
        while match := _QUOTED_KEY.search(text, at):
            # The closing quote may as well be the next one's opening, so what is no key is stepped over by one quote.
            at = match.end(1)
            if self.lists(match[2]) and (span := self._value(text, match.end(), objects=objects)):
                yield span
                at = max(at, span.end)

    def _value(self, text: str, at: int, *, objects: bool) -> Span | None:
        opening = _OPENING.match(text, at)
        if opening:
            inside = opening.end()
            return Span(inside, _closing(text, inside, len(opening[1]), opening[2]), _KEY_MARK)
        if not objects:
            return None
        if text[at : at + 1] in ("{", "["):
            depth = 0
            for token in _TOKEN.finditer(text, at):
                depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
                if not depth:
                    return Span(at, token.end(), _KEY_MARK)
            return Span(at, len(text), _KEY_MARK)
        bare = _BARE_VALUE.match(text, at)
        return Span(*bare.span(), _KEY_MARK) if bare else None

    def _bare_assignments(self, text: str) -> Iterator[Span]:
        at = 0
        while match := _BARE_KEY.search(text, at):
            at = match.end()
            if self.lists(match[1]):
                whole_line = _plain_key(match[1]).endswith(("authorization", "cookie"))
                bare = _LINE.match(text, at) if whole_line else None
                span = Span(*bare.span(), _KEY_MARK) if bare else self._value(text, at, objects=True)
                if span:
                    yield span
                    at = max(at, span.end)

    def _cut_header(self, text: str) -> Iterator[Span]:
        """Yield the beginning of a value of (d) at the end of a text whose rest was lost."""
        for value in self.values:
            tail = text[-len(value) :]
            at = tail.find(value[:4])
            while at >= 0:
                if value.startswith(tail[at:]):
                    yield Span(len(text) - len(tail) + at, len(text), _HEADER_MARK)
                    break
                at = tail.find(value[:4], at + 1)

    def _cut_look(self, text: str) -> Iterator[Span]:
        """Yield the beginning of something of (c) at the end of a text whose rest was lost."""
        offset = max(0, len(text) - _EDGE_LENGTH)
        if self.redacting and (match := _EDGE.search(text[offset:])):
            yield Span(offset + match.start(1), len(text), MARK.format("cut"))

    def _string(self, start: int, end: int, content: str, level: int, *, lost: bool = False) -> Span | None:
        """Return what stands instead of a string, if anything in it has to go; ``lost``: its end is missing."""
        # Without these signs there is neither JSON nor an assignment in a string.
        if not lost and not self.values and not self.rules and not any(sign in content for sign in "\\\"'="):
            return None
        plain = _unescaped(content)
        if level < _LEVELS and _JSON_TEXT.match(plain):
            if _is_json(plain.encode("utf-8", "surrogatepass")):
                spans = self.json(plain, level + 1)
            else:
                spans = [*self.json(plain, level + 1), *self.credentials(plain), *self.assignments(plain, objects=True)]
        else:
            spans = [*self.credentials(plain), *self.assignments(plain, objects=True)]
        if lost:
            spans += [*self._cut_header(plain), *self._cut_look(plain)]
        if not spans:
            return None
        masked, _ = _replaced(plain, spans, len(plain))
        return Span(start, end, _quoted(masked))


# Reading and writing JSON strings


def _quoted(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    try:
        quoted.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can name and UTF-8 cannot hold
        return json.dumps(text)
    return quoted


_KEY_MARK: Final = MARK.format("key")
_HEADER_MARK: Final = MARK.format("header")
_JSON_MARK: Final = _quoted(_KEY_MARK)
_HALF_ESCAPE: Final = re.compile(r"(?<!\\)\\u[0-9a-fA-F]{0,3}\Z")
_UNICODE_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")


def _unescaped(content: str) -> str:
    """Return what a JSON string says. One with a broken escape says what its other escapes do."""
    if "\\" not in content:
        return content
    try:
        text: str = json.loads(f'"{content}"', strict=False)
    except ValueError:
        whole = _HALF_ESCAPE.sub("", content)
        return _UNICODE_ESCAPE.sub(lambda match: chr(int(match[1], 16)), whole).replace('\\"', '"')
    return text


def _recurs(data: bytes, needles: tuple[bytes, ...], *, escaped: bool) -> bool:
    """Whether rule (d) can find anything; ``escaped``: behind an escape, too."""
    for needle in needles:
        if data.find(needle) >= 0:
            return True
    return escaped and b"\\u00" in data


def _is_json(data: bytes) -> bool:
    try:
        _SKIP.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _is_schema(text: str, at: int) -> bool:
    """Whether the object at an offset describes a parameter, as in a tool's inputSchema, and gives no value of it."""
    try:
        return _describes(json.JSONDecoder().raw_decode(text[at : at + _MARGIN])[0])
    except (ValueError, TypeError, RecursionError):
        return False


def _describes(schema: Any) -> bool:
    if not isinstance(schema, dict) or not schema.keys() <= _SCHEMA:
        return False
    kinds = schema.get("type", [])
    inner = [each for name in ("anyOf", "oneOf", "allOf") for each in schema.get(name, [])]
    if "items" in schema:
        inner.append(schema["items"])
    named = all(kind in _SCHEMA_TYPES for kind in (kinds if isinstance(kinds, list) else [kinds]))
    return named and all(map(_describes, inner))


def _closing(text: str, at: int, backslashes: int, sign: str) -> int:
    """Return where a quoted value ends, whose own quotes stand behind so many backslashes; or the end of the text."""
    while (end := text.find(sign, at)) >= 0:
        before = end
        while before > at and text[before - 1] == "\\":
            before -= 1
        slashes = end - before
        if slashes == backslashes or (not backslashes and slashes % 2 == 0):
            return before if backslashes else end
        at = end + 1
    return len(text)


def _plain_key(key: str) -> str:
    return key.lower().replace("-", "").replace("_", "").strip()


# Decoding, cutting, replacing


def _decoded(data: bytes) -> str:
    """Return bytes as text. JSON is UTF-8 (RFC 8259 §8.1), and what is in another encoding must not hide in it."""
    if b"\0" in data[:4]:
        return data.decode(json.detect_encoding(data), "backslashreplace")
    return data.decode("utf-8", "backslashreplace")


def _whole_characters(data: bytes, limit: int) -> bytes:
    """Return at most ``limit`` bytes, without the first half of a UTF-8 character at their end."""
    end = limit
    while end > max(0, limit - 3) and data[end] & 0xC0 == 0x80:
        end -= 1
    return data[:end] if data[end] & 0xC0 != 0x80 else data[:limit]


def _replaced(text: str, spans: Iterable[Span], limit: int) -> tuple[str, int]:
    """Return the first ``limit`` characters of a text with spans replaced, and how many there were.

    Of spans that overlap the first one says what stands there, for all of them.
    """
    parts: list[str] = []
    at = count = 0
    for start, end, instead in sorted(spans, key=itemgetter(0)):
        if start >= limit:
            break
        if start >= at:
            parts += [text[at:start], instead]
            count += 1
        at = max(at, end)
    if not count:
        return text[:limit], 0
    return "".join([*parts, text[at:limit]]), count


# Credentials in headers


def _credentials(name: str, value: str) -> Iterator[str]:
    if name.endswith("cookie"):
        # RFC 6265 §4.1.1, §4.2.1: of Set-Cookie only the first pair is the cookie.
        pairs = value.split(";") if name == "cookie" else [value.partition(";")[0]]
        for pair in pairs:
            cookie = pair.partition("=")[2].strip().strip('"')
            if len(cookie) >= _LEAST_COOKIE:
                yield cookie
        return
    scheme = _SCHEMES.match(value)
    credential = scheme[1] if scheme else value
    # The credential recurs where the whole value does, so it alone is looked for.
    if len(credential) >= _LEAST:
        yield credential
    if value[:6].lower() == "basic ":
        user, _, password = _basic(credential).partition(":")
        if len(password) >= _LEAST:
            yield password
        # Many services take a key as the user; a short user name is a name.
        if len(user) >= (_LEAST if not password else 2 * _LEAST):
            yield user


def _basic(credential: str) -> str:
    """Return what a basic credential says (RFC 7617 §2), or what the first part of a cut one does; "" if nothing."""
    credential = credential.rstrip("=")
    try:
        plain = base64.b64decode(credential[: len(credential) // 4 * 4] if len(credential) % 4 == 1 else
                                 credential + "=" * (-len(credential) % 4), validate=True)  # fmt: skip
    except (binascii.Error, ValueError):
        return ""
    return plain.decode("utf-8", "replace")


def _is_basic(credential: str) -> bool:
    return ":" in _basic(credential)


def _spelled(found: set[str]) -> Secrets:
    """Return credentials with the other spellings in which they may recur: escaped for JSON in JSON, and for URLs."""
    values: set[str] = set()
    for value in found:
        if value.lower() in _NO_SECRETS:
            continue
        values |= {value, quote(value, safe=""), json.dumps(value)[1:-1]}
        for _ in range(_LEVELS + 1):
            value = json.dumps(value, ensure_ascii=False)[1:-1]
            values |= {value, value.replace("/", "\\/")}
    longest_first = tuple(sorted(values, key=len, reverse=True))
    return Secrets(longest_first, tuple(value.encode("utf-8", "surrogatepass") for value in longest_first))
