"""Conditions: every place, every test, and no exception whatever a peer sends."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision.attempt import Attempt, Request
from sidecar.core.decision.conditions import LOOK_BYTES, MISSING, Look, parse_json, resolve, resolve_all
from sidecar.core.decision.rows import Condition
from tests.core.making import answered, attempts, conditions, headers, requests, short, steady

REQUEST = Request("POST", "/a%2Fb", "state=open&tag=x%20y&tag=z&empty=", headers(("X-Tenant", "blue")))
ANSWER = answered(
    429,
    ("X-Left", "0"),
    ("X-Left", "7"),
    body=b'{"error": {"code": "slow", "n": 5, "f": 1.0, "null": null, "yes": true, "no": false, "list": [1, "two"]},'
    b' "a/b": "slash", "m~n": "tilde", "": "empty"}',
)


def holds(place: str, name: str = "", **test: object) -> bool:
    [(kind, value)] = test.items()
    more: dict[str, object] = {"values": value, "pattern": value, "present": value}
    key = {"equals": "values", "in_": "values", "matches": "pattern", "present": "present"}[kind]
    return Look(REQUEST, ANSWER).holds(Condition(place, name, kind.strip("_"), **{key: more[key]}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ("header", "x-left", "0"),
        ("header", "X-LEFT", "7"),
        ("body", "/error/code", "slow"),
        ("body", "/error/n", "5"),
        ("body", "/error/f", "1.0"),
        ("body", "/error/null", "null"),
        ("body", "/error/yes", "true"),
        ("body", "/error/no", "false"),
        ("body", "/error/list/0", "1"),
        ("body", "/error/list/1", "two"),
        ("body", "/a~1b", "slash"),
        ("body", "/m~0n", "tilde"),
        ("body", "/", "empty"),
        ("request_header", "x-tenant", "blue"),
        ("method", "", "POST"),
        ("path", "", "/a%2Fb"),
        ("query", "state", "open"),
        ("query", "tag", "x y"),
        ("query", "tag", "z"),
        ("query", "empty", ""),
        ("query", "", REQUEST.query),
    ],
)
def test_every_place_is_compared_with_its_text(place: str, name: str, value: str) -> None:
    assert holds(place, name, equals=(value,))
    assert holds(place, name, in_=("other", value))
    assert holds(place, name, matches=re.compile(re.escape(value)))
    assert holds(place, name, present=True)
    assert not holds(place, name, equals=(value + "!",))
    assert not holds(place, name, present=False)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("header", "x-absent"),
        ("body", "/absent"),
        ("body", "/error/list/2"),
        ("body", "/error/list/01"),
        ("body", "/error/list/-"),
        ("body", "/error/list/9999999999"),
        ("body", "/error/list/²"),
        ("body", "/error/list/"),
        ("body", "/error/code/deeper"),
        ("body", "not-a-pointer"),
        ("request_header", "x-absent"),
        ("query", "absent"),
    ],
)
def test_what_is_not_there_is_absent_and_equal_to_nothing(place: str, name: str) -> None:
    assert holds(place, name, present=False)
    assert not holds(place, name, present=True)
    assert not holds(place, name, equals=("null",))
    assert not holds(place, name, matches=re.compile(""))


def test_objects_and_arrays_are_present_but_equal_to_no_text() -> None:
    assert holds("body", "/error", present=True)
    assert holds("body", "", present=True)
    assert not holds("body", "/error/list", matches=re.compile(""))


def test_matches_searches_and_without_a_pattern_is_false() -> None:
    assert holds("body_text", matches=re.compile('"slow"'))
    assert not holds("body_text", matches=None)


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        b"{",
        b"nonsense",
        b"\xff\xfe",
        b'{"a": NaN}',
        b"[" * LOOK_BYTES,
        b'{"a":' * 10_000,
        b'"' + b"x" * LOOK_BYTES + b'"',
    ],
    ids=short,
)
def test_a_body_that_is_not_json_makes_a_condition_false_and_never_raises(body: bytes | None) -> None:
    look = Look(REQUEST, answered(500, body=body))
    assert not look.holds(Condition("body", "/a", "equals", ("1",)))
    assert not look.holds(Condition("body", "", "present"))
    assert look.holds(Condition("body", "", "present", present=False))


def test_a_byte_order_mark_is_no_fault() -> None:
    assert resolve(parse_json(b'\xef\xbb\xbf{"a": "x"}'), "/a") == "x"


def test_a_number_of_endless_digits_costs_nothing() -> None:
    assert resolve(parse_json(b'{"a": ' + b"9" * 60_000 + b"}"), "/a") == "9" * 60_000


def test_body_text_is_searched_even_where_it_is_not_utf_8() -> None:
    look = Look(REQUEST, answered(503, body="Wartungsarbeiten für heute".encode("latin-1")))
    assert look.holds(Condition("body_text", test="matches", pattern=re.compile("Wartung")))


def test_an_empty_query_has_no_text() -> None:
    assert Look(Request("GET"), ANSWER).holds(Condition("query", present=False))


def test_the_body_is_parsed_once() -> None:
    look = Look(REQUEST, ANSWER)
    assert look.body_values("/error")[0] is look.body_values("/error")[0]


LISTED = answered(
    429, body=b'{"errors": [{"code": "a"}, {"code": 5}, {"no": 1}, 7], "by": {"x": {"code": "b"}, "*": "star"}}'
)


@pytest.mark.parametrize(
    ("pointer", "values"),
    [
        ("/errors/*/code", ["a", "5"]),
        ("/*/*/code", ["a", "5", "b"]),
        ("/by/*", ["star"]),
        ("/errors/*", ["7"]),
        ("/errors/*/code/*", []),
        ("/none/*", []),
    ],
)
def test_a_step_star_is_any(pointer: str, values: list[str]) -> None:
    look = Look(REQUEST, LISTED)
    assert look.texts("body", pointer) == values
    for value in values:
        assert look.holds(Condition("body", pointer, "equals", (value,)))
    assert look.holds(Condition("body", pointer, "present", present=bool(look.body_values(pointer))))


def test_any_number_of_stars_costs_no_more_than_the_document() -> None:
    document: object = 1
    for _ in range(13):
        document = [document, document]
    body = json.dumps(document).encode()
    assert len(body) <= LOOK_BYTES
    assert len(Look(REQUEST, answered(429, body=body)).texts("body", "/*" * 13)) == 1 << 13


@steady
@given(requests, attempts, conditions)
def test_no_condition_ever_raises(request: Request, attempt: object, condition: Condition) -> None:
    assert Look(request, attempt).holds(condition) in (True, False)  # type: ignore[arg-type]


@steady
@given(
    st.recursive(
        st.none() | st.booleans() | st.text(), lambda inner: st.dictionaries(st.text(), inner) | st.lists(inner)
    )
)
def test_every_value_of_a_document_is_reached_by_its_pointer(document: object) -> None:
    parsed = parse_json(json.dumps(document).encode())

    def walk(value: object, pointer: str) -> None:
        assert value in resolve_all(parsed, pointer)
        assert "/*" in pointer or resolve(parsed, pointer) == value
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, below in inner:
            walk(below, pointer + "/" + str(key).replace("~", "~0").replace("/", "~1"))

    if parsed is not MISSING:
        walk(document, "")


@pytest.mark.parametrize("place", ["header", "request_header"])
@pytest.mark.parametrize(("values", "there"), [([""], False), (["", " \t"], False), (["", "x"], True), (["0"], True)])
def test_a_blank_field_is_not_present(place: str, values: list[str], there: bool) -> None:
    fields = headers(*(("X-Blank", value) for value in values))
    look = Look(Request("GET", headers=fields), Attempt(1, status=200, headers=fields))
    assert look.holds(Condition(place, "x-blank", "present", present=there))  # type: ignore[arg-type]
    assert not look.holds(Condition(place, "x-blank", "present", present=not there))  # type: ignore[arg-type]
