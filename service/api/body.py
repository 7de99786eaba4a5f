"""Reads a body and turns it into plain data, or says why not: size, encoding, JSON and what no body may hold.

Stricter than Python's parser, which takes NaN, doubled names, lone surrogates and numbers of any length. Nearly every
body is plain, which for a long one a fast parser and some counting tell; the others are read carefully, and only there
refused. Knows nothing of what a body means; how long a sender may take is decided by `wire`.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from json import JSONDecoder
from math import isinf
from typing import Any

import msgspec
from fastapi import Request
from starlette.requests import ClientDisconnect

from service.api.problems import ProblemError

SINGLE_LIMIT, LIST_LIMIT = 64 * 1024, 2 * 1024 * 1024
MAX_DEPTH, MAX_BRACKETS, MAX_NAMES, MAX_INTEGER = 32, 100_000, 2_000, 2**53
_DIGITS_OF_MAX_INTEGER, _LONGEST_NUMBER = 16, 100
_JSON_TYPE = re.compile(rb'application/json(?:;charset="?utf-8"?)?')
_TEXT = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A text, ended or not, so that it never fails and the search stays linear."""
_NO_BRACKET = {code: None for code in range(128) if chr(code) not in "[]{}"}
_LONG_BODY = 400
"""Bytes from which the fast way is faster."""
_TO_ZERO, _LONG_NUMBER = bytes(b"0"[0] if chr(code).isdecimal() else code for code in range(256)), b"0" * 33
"""A number of more than 100 characters has so many digits in a row somewhere."""
_SPACED_NAMES = (b" :", b"\t:", b"\r:", b"\n:")
_UNSURE: Any = object()
_decode_plain = msgspec.json.Decoder().decode


class Unreadable(ValueError):
    """A body that is not the JSON we take."""

    def __init__(self, status: int, slug: str, detail: str, field: str = "(body)") -> None:
        super().__init__(detail)
        self.status, self.slug, self.detail, self.field = status, slug, detail, field


class WholeRequest(Request):
    """A request whose body is there."""

    def __init__(self, scope: MutableMapping[str, Any], whole: bytes) -> None:
        super().__init__(scope)
        self.whole = whole


async def read_body(request: Request, limit: int) -> bytes:
    """Read the body, at most `limit` bytes of it.

    Raises:
        ProblemError: 413 as soon as it is longer or says so, 415 where it is not declared as plain JSON.
    """
    check_declared(request)
    [length, *_] = sent(request, b"content-length") or (b"0",)
    if not length.isdigit() or len(length) > 18 or int(length) > limit:
        raise too_large(limit)
    if isinstance(request, WholeRequest):
        if len(request.whole) > limit:
            raise too_large(limit)
        return request.whole
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise too_large(limit)
    except ClientDisconnect:
        raise ProblemError(400, "incomplete", "The connection ended before the body did.") from None
    return bytes(body)


def sent(request: Request, name: bytes) -> list[bytes]:
    """Return the values of a header, however often it was sent. Its name in lower case."""
    return [value for each, value in request.scope["headers"] if each == name]


def check_declared(request: Request) -> None:
    """Refuse a body of another type than JSON in UTF-8, and a compressed one. Without a declaration it is JSON."""
    kinds = sent(request, b"content-type")
    if len(kinds) > 1 or (kinds and not _JSON_TYPE.fullmatch(kinds[0].replace(b" ", b"").lower())):
        raise ProblemError(415, "not-json", "Send Content-Type: application/json, once, in UTF-8.")
    if sent(request, b"content-encoding"):
        raise ProblemError(415, "encoded", "Send the body as it is, without Content-Encoding.")


def too_large(limit: int) -> ProblemError:
    """Say that the body is too large."""
    return ProblemError(413, "too-large", f"The body is larger than {limit} bytes; send less at a time.")


def read_json(body: bytes) -> Any:
    """Return what the body says as plain Python data.

    Raises:
        ProblemError: 400 where it is no JSON in UTF-8, holds NaN or Infinity, a name twice in an object, more than
            MAX_NAMES names in one, or is nested deeper than MAX_DEPTH; 422 for integers beyond 2^53, numbers beyond
            a double, lone surrogates and NUL.
    """
    content = read_plain(body) if len(body) >= _LONG_BODY else _UNSURE
    return read_carefully(body) if content is _UNSURE else content


def read_plain(body: bytes) -> Any:
    """Return what a plain body says, as `read_carefully` would, or `_UNSURE` where that must tell.

    Plain is what the fast parser takes and has no escape of a character, no long number and no name twice. It has no
    name twice where its objects have as many names as the text has at most.
    """
    if b"\\u" in body or any(name in body for name in _SPACED_NAMES) or _LONG_NUMBER in body.translate(_TO_ZERO):
        return _UNSURE
    if body.count(b"{") + body.count(b"[") > MAX_BRACKETS:
        return _UNSURE
    try:
        content = _decode_plain(body)
    except (ValueError, RecursionError):
        return _UNSURE
    return content if _names_in(content) == body.count(b'":') else _UNSURE


def _names_in(content: Any) -> int:
    """Count the names of all objects; -1 where one has too many or stands too deep, or an integer is too large."""
    found, depth, level = 0, 0, [content]
    while level:
        depth += 1
        inner: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is dict:
                found += len(value)
                inner += value.values()
            elif kind is list:
                inner += value
            elif kind is int and not -MAX_INTEGER <= value <= MAX_INTEGER:
                return -1
            else:
                continue
            if depth > MAX_DEPTH or (kind is dict and len(value) > MAX_NAMES):
                return -1
        level = inner
    return found


def read_carefully(body: bytes) -> Any:
    """Do as `read_json`, whatever the body is."""
    try:
        text = body.decode("utf-8")
        check_depth(text)
        content = _decode(text)
        if "\\u" in text:
            check_texts(content)
    except Unreadable as error:
        errors = [(error.field, error.detail)] if error.status == 422 else ()
        raise ProblemError(error.status, error.slug, f"{error.field}: {error.detail}.", errors) from None
    except (ValueError, RecursionError):
        raise ProblemError(400, "not-json", "The body is not valid JSON; send JSON in UTF-8, without a mark.") from None
    return content


def check_depth(text: str) -> None:
    """Refuse what is nested too deep, before a parser sees it. Few bodies have brackets enough to need counting."""
    brackets = text.count("{") + text.count("[")
    if brackets <= MAX_DEPTH:
        return
    if brackets > MAX_BRACKETS:  # two bytes of empty object become sixty of memory
        raise Unreadable(400, "too-deep", f"has more than {MAX_BRACKETS} objects and lists")
    depth = 0
    for bracket in _TEXT.sub("", text).translate(_NO_BRACKET):
        if bracket in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Unreadable(400, "too-deep", f"is nested more than {MAX_DEPTH} deep")
        elif bracket in "]}":
            depth -= 1


def check_texts(content: Any) -> None:
    """Refuse lone surrogates and NUL in texts and names; they come in as escapes only."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
                raise Unreadable(422, "invalid-text", "holds a text with a NUL or half a surrogate pair")
        elif isinstance(value, dict):
            waiting += value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise Unreadable(400, "repeated-name", "has an object that names a field twice")
    if len(pairs) > MAX_NAMES:
        raise Unreadable(400, "too-many-names", f"has an object with more than {MAX_NAMES} names")
    return content


def _integer(digits: str) -> int:
    if len(digits) < _DIGITS_OF_MAX_INTEGER:
        return int(digits)
    number = int(digits) if len(digits) <= _DIGITS_OF_MAX_INTEGER + 1 else MAX_INTEGER + 1
    if abs(number) > MAX_INTEGER:
        raise Unreadable(422, "invalid-number", "holds an integer beyond 2^53; send it as a text")
    return number


def _real(digits: str) -> float:
    number = float(digits) if len(digits) <= _LONGEST_NUMBER else float("inf")
    if isinf(number):
        raise Unreadable(422, "invalid-number", "holds a number that is too large or too long")
    return number


def _constant(name: str) -> float:
    raise Unreadable(400, "not-json", "holds NaN or Infinity, which JSON does not have")


_decoder = JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_real, parse_constant=_constant)
_scan = _decoder.scan_once  # type: ignore[attr-defined]


def _decode(text: str) -> Any:
    """Do what `JSONDecoder.decode` does, without its three searches for blanks and its count of lines."""
    text = text.strip(" \t\n\r")
    try:
        content, end = _scan(text, 0)
    except StopIteration:
        raise ValueError from None
    if end != len(text):
        raise ValueError
    return content
