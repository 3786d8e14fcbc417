"""The first question of redaction: whether anything in some bytes can match a rule at all.

Almost no body holds a secret, and each byte of every body is asked, so this must be cheap: no copies, no objects, and
of most characters only whether they occur. False is certain. True is not: then `redact` looks at every token.

Two facts about CPython shape it. A small integer is looked for in bytes by `memchr`, which costs next to nothing, so
each sign is looked up under its rarest character, and most of these do not occur. And a pattern that begins with one
literal is searched for with a plain loop, many times as fast as one that begins with a choice; what comes before the
literal is looked up behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from operator import itemgetter
from typing import Final

#: The signs of rule (c), each under its rarest character.
_JWT: Final = re.compile(rb"J(?<=eyJ)").search
_AWS_OR_GOOGLE: Final = re.compile(rb"I(?:(?<=AKI)A|(?<=ASI)A|(?<=AI)za)").search
_SENDGRID: Final = re.compile(rb"G(?<=SG)\.").search
_GOOGLE_OAUTH: Final = re.compile(rb"9(?<=ya29)\.").search
_USERINFO: Final = re.compile(rb"/(?<=[/\\]/)[^\s/\"]*@").search
_UPPER_SCHEME: Final = re.compile(rb"B(?:[Ee][Aa][Rr][Ee][Rr]|[Aa][Ss][Ii][Cc])[\s\\]").search
_LOWER_SCHEME: Final = re.compile(rb"b(?:earer|asic)[\s\\]").search
# Dashes and underlines abound, in dates and in names, so one look at the character before them comes first.
_DASHED: Final = re.compile(
    rb"-(?<=[a-zX-]-)(?:(?<=sk-)|(?<=xox[a-z]-)|(?<=glpat-)|(?<=xapp-)|(?<=pypi-)|(?<=xai-)|(?<=tvly-)|(?<=pplx-)"
    rb"|(?<=GOCSPX-)|(?<=-----))"
).search
_UNDERLINED: Final = re.compile(
    rb"_(?<=[cefikmoprstu1]_)(?:(?<=gh[pousr]_)|(?<=npm_)|(?<=hf_)|(?<=_pat_)|(?<=k_live_)|(?<=k_test_)|(?<=gsk_)"
    rb"|(?<=dop_v1_)|(?<=lin_api_)|(?<=shpat_)|(?<=whsec_))"
).search
#: A letter or a sign of ASCII that is written as an escape hides a word from every search for it.
_ESCAPED: Final = re.compile(rb"\\u00[2-7]").search

#: Keys as they are compared: lower case, without - and _; without what may stand between a key and its colon either,
#: backslashes among it, so that a key inside a string inside a string looks like any other. Not all notations have
#: double quotes and colons: ``'key' => 'value'``.
_PLAIN: Final = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ'=", b'abcdefghijklmnopqrstuvwxyz":')
_BETWEEN: Final = b"-_ \t\r\n\\"

#: How many letters of a word's end are compared.
_LAST: Final = 5

#: How many of them a character at a time, in keys that may have anything between their letters.
_FIRST: Final = 3


class Screen:
    """The question, for keys that end with one of ``words`` and with none of ``others``.

    Words are in lower case and without ``-`` and ``_``.
    """

    def __init__(self, words: Iterable[str], others: Iterable[str]) -> None:
        self._words = tuple(word.encode() for word in words)
        self._others = tuple(word.encode() for word in others)
        length = min(_LAST, *map(len, self._words))
        self._end = itemgetter(slice(-length, None))
        self._ends = frozenset(map(self._end, self._words))
        end = _end_pattern(self._ends, length, _SEPARATORS, last=_NO_BACKSLASH)
        first = _sieve(self._ends, min(_FIRST, length), _SEPARATORS, last=_NO_BACKSLASH)
        # Most keys are none already by what their last characters are. Of the others: a key and its colon; the same
        # inside a string, where the quote is escaped; and what is not worth a pattern: something between the quote and
        # the colon, or two backslashes and more. MCP's own token is known by its name.
        self._key = re.compile(
            rb""":(?<=%b["'\-_ \t\r\n\\]:)(?:(?<=%b["']:)(?<=(?:%b)["']:)(?<!progressToken["']:)|(?<=[-_ \t\r\n\\]:)"""
            rb"""|(?<=\\["']:)(?:(?<=%b\\["']:)(?<=(?:%b)\\["']:)(?<!progressToken\\["']:)|(?<=\\\\["']:)))"""
            % (_sieve(self._ends, length, _ANYTHING, last=_ANYTHING), first, end, first, end),
            re.DOTALL,
        ).search
        # A parameter of a URL or a form, or a quoted key with an equals sign.
        end = _end_pattern(self._ends, length, rb"\-_", last=rb"\-_")
        self._assigned = re.compile(
            rb"""=(?:(?<=(?:%b)=)|(?<=["']=)|(?<=["'\s][ \t\r\n\\]=))""" % end, re.DOTALL
        ).search

    def may_match(self, data: bytes) -> bool:
        """Whether any rule can match."""
        return self.looks(data) or (self._key(data) is not None and self.keys(data))

    def looks(self, data: bytes) -> bool:
        """Whether a credential can be told by its looks, or a parameter by its name, or an escape hides something."""
        # Written out: a loop would cost more than what it asks.
        return bool(
            (0x5F in data and _UNDERLINED(data))
            or (0x2D in data and _DASHED(data))
            or (0x5C in data and _ESCAPED(data))
            or (0x3D in data and self._assigned(data))
            or (0x40 in data and _USERINFO(data))
            or (0x4A in data and _JWT(data))
            or (0x49 in data and _AWS_OR_GOOGLE(data))
            or (0x47 in data and _SENDGRID(data))
            or (0x39 in data and _GOOGLE_OAUTH(data))
            or (0x42 in data and _UPPER_SCHEME(data))
            or (0x62 in data and _LOWER_SCHEME(data))
        )

    def keys(self, data: bytes) -> bool:
        """Whether rule (a) can find a key: the text before a colon ends with a listed word."""
        if not (self._key(data) or (0x3D in data and self._assigned(data))):
            return False
        ends = data.translate(_PLAIN, _BETWEEN).split(b'":')[:-1]
        if self._ends.isdisjoint(map(self._end, ends)):
            return False
        return any(end.endswith(self._words) and not end.endswith(self._others) for end in ends)


# Patterns for the end of a key, in either case, with separators anywhere in it. They are looked up behind something, so
# all their alternatives have one width. The very last character may be no backslash: it escapes the quote after it.

_SEPARATORS: Final = rb"\-_ \t\r\n\\"
_NO_BACKSLASH: Final = rb"\-_ \t\r\n"
_ANYTHING: Final = rb"\"'\-_ \t\r\n\\"


def _end_pattern(ends: Iterable[bytes], width: int, separators: bytes, *, last: bytes) -> bytes:
    """Return alternatives for the ends of words, and for as much of one as follows the last separator."""
    return _either(set(ends)) + b"|" + _separated(set(ends), width, separators, last)


def _sieve(ends: Iterable[bytes], width: int, separators: bytes, *, last: bytes) -> bytes:
    """Return a choice of characters for each of the last ones: cheaper than the alternatives, and lets more pass."""
    sieve = b""
    for left in range(width, 0, -1):
        # with separators behind it a character may be any of those that follow in the word
        letters = {end[-at:][:1] for end in ends for at in range(1, left + 1)}
        sieve += _choice(letters, separators if left > 1 else last)
    return sieve


def _either(ends: set[bytes]) -> bytes:
    """Return a pattern for words of one length, the beginnings that they share written once."""
    parts = []
    for letter in sorted({end[:1] for end in ends}):
        rests = {end[1:] for end in ends if end[:1] == letter} - {b""}
        rest = _either(rests) if rests else b""
        parts.append(_choice({letter}) + (b"(?:%b)" % rest if b"|" in rest else rest))
    return b"|".join(parts)


def _separated(ends: set[bytes], width: int, separators: bytes, last: bytes) -> bytes:
    if width == 1:
        return b"[%b]" % last
    shorter = {end[1:] for end in ends}
    return b"[%b](?:%b)|.(?:%b)" % (separators, _either(shorter), _separated(shorter, width - 1, separators, last))


def _choice(letters: Iterable[bytes], more: bytes = b"") -> bytes:
    cases = sorted({case for letter in letters for case in (letter, letter.upper())})
    return b"[%b%b]" % (b"".join(map(re.escape, cases)), more)
