"""Short ways to make the nouns of the core, and hypothesis strategies over them.

Everything random is derandomized, so that a run in CI is the same run every time.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from sidecar.core.decision.attempt import Attempt, Headers, Now, Pressure, Replay, Request
from sidecar.core.decision.policy import Policy, Verdict
from sidecar.core.decision.rows import Backoff, Condition, HintSource, Reread, Row
from sidecar.core.decision.table import Table
from sidecar.core.enums import FailureKind, Jitter, OverMax, Unit, Verb

steady = settings(deadline=None, derandomize=True, max_examples=200)

ANY_STATUS = frozenset(range(100, 1000))
ANY_FAILURE = frozenset(FailureKind)
NOW = Now(monotonic=1000.0, wall=1_696_004_797.0)
CALM = Pressure()


def short(value: object) -> str:
    """The id of a parameter: a megabyte of digits makes no name."""
    return ascii(value)[:40]


def headers(*fields: tuple[str, str]) -> Headers:
    return Headers(tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in fields))


def row(verb: Verb = Verb.RETRY, status: int | None = None, **more: Any) -> Row:
    return Row(verb, statuses=frozenset() if status is None else frozenset({status}), **more)


def safe_table(*first: Row) -> Table:
    """These rows, then what the shipped default says in short."""
    return Table(
        (
            *first,
            Row(Verb.RETRY, statuses=frozenset({429})),
            Row(Verb.RETRY, statuses=frozenset(range(500, 600))),
            Row(Verb.RETRY, failures=ANY_FAILURE),
            Row(Verb.PASS, statuses=ANY_STATUS),
        )
    )


def policy(*first: Row, **more: Any) -> Policy:
    return Policy("made", safe_table(*first), **more)


def get(**more: Any) -> Request:
    return Request("GET", **more)


def post(**more: Any) -> Request:
    return Request("POST", **more)


def answered(status: int, *fields: tuple[str, str], number: int = 1, **more: Any) -> Attempt:
    return Attempt(number, status=status, headers=headers(*fields), **more)


def failed(kind: FailureKind, number: int = 1, **more: Any) -> Attempt:
    return Attempt(number, failure=kind, **more)


# --- strategies ------------------------------------------------------------------------------------------

floats = st.floats(allow_nan=True, allow_infinity=True)
chances = st.floats(0, 1)
statuses = st.integers(100, 999)
texts = st.one_of(
    st.text(max_size=40),
    st.text('0123456789.:-+TZGMT ,;="eEmsh', max_size=40),
    st.integers().map(str),
    st.floats().map(str),
    st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT")),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
)
latin = texts.map(lambda text: text.encode("latin-1", "replace").decode("latin-1"))
names = st.sampled_from(["retry-after", "x-a", "date", "ratelimit", "x-should-retry"])
some_headers = st.lists(st.tuples(names, latin), max_size=4).map(lambda fields: headers(*fields))
pointers = st.sampled_from(["", "/a", "/a/0", "/error/code", "/~1", "x"])
bodies = st.one_of(
    st.none(),
    st.binary(max_size=60),
    st.sampled_from([b'{"a": 1}', b'{"a": ["x"]}', b'{"error": {"code": "x"}}', b'{"a": "5"}', b"[" * 5000, b"null"]),
)

conditions = st.builds(
    Condition,
    place=st.sampled_from(["header", "body", "body_text", "request_header", "method", "path", "query"]),
    name=st.one_of(names, pointers),
    test=st.sampled_from(["equals", "in", "matches", "present"]),
    values=st.lists(st.sampled_from(["", "1", "x", "GET", "POST", "/", "5"]), max_size=3).map(tuple),
    pattern=st.sampled_from([None, re.compile("x"), re.compile("^[0-9]+$")]),
    present=st.booleans(),
)
some_conditions = st.lists(conditions, max_size=2).map(tuple)

hint_sources = st.builds(
    HintSource,
    place=st.sampled_from(["header", "field", "body", "constant"]),
    name=st.one_of(names, pointers),
    field=st.sampled_from(["t", "reset", "r"]),
    unit=st.sampled_from(Unit),
    constant_seconds=st.floats(0, 1e6),
    when=some_conditions,
    plus_seconds=st.floats(0, 100),
    at_least_seconds=st.floats(0, 100),
    clock=st.sampled_from(["local", "server"]),
)
some_sources = st.lists(hint_sources, max_size=3).map(tuple)

backoffs = st.builds(
    Backoff,
    base_seconds=st.floats(0, 1e6),
    factor=st.floats(0, 100),
    cap_seconds=st.floats(0, 1e6),
    jitter=st.sampled_from(Jitter),
    ratio=st.floats(0, 1),
)
status_sets = st.one_of(
    st.just(frozenset[int]()),
    st.just(ANY_STATUS),
    st.frozensets(st.sampled_from([200, 404, 408, 409, 429, 500, 503]), max_size=4),
    st.just(frozenset(range(500, 600))),
)
rows = st.builds(
    Row,
    verb=st.sampled_from(Verb),
    statuses=status_sets,
    failures=st.one_of(st.just(frozenset[FailureKind]()), st.frozensets(st.sampled_from(FailureKind))),
    when=some_conditions,
    attempts=st.one_of(st.none(), st.integers(1, 6)),
    backoff=st.one_of(st.none(), backoffs),
    wait=st.one_of(st.none(), some_sources),
    max_wait_seconds=st.one_of(st.none(), st.floats(0, 1e4)),
    over_max=st.one_of(st.none(), st.sampled_from(OverMax)),
    processed=st.sampled_from([None, True]),
    gate=st.sampled_from([None, True, False]),
    cost=st.floats(0, 5),
    reread=st.sampled_from([None, Reread()]),
)
tables = st.lists(rows, max_size=12).map(lambda found: Table(tuple(found)))
policies = st.builds(
    Policy,
    name=st.just("drawn"),
    table=tables,
    attempts=st.integers(1, 6),
    backoff=backoffs,
    wait=some_sources,
    max_wait_seconds=st.floats(0, 1e4),
    over_max=st.sampled_from(OverMax),
    verdict=st.sampled_from([None, Verdict("x-should-retry", "x", "5")]),
)
EAGER = Row(Verb.RETRY, statuses=ANY_STATUS, failures=ANY_FAILURE)
eager_policies = st.builds(
    lambda found, drawn, attempts: replace(drawn, table=Table((*found.rows[:3], EAGER)), attempts=attempts),
    tables,
    policies,
    st.integers(1, 6),
)
"""What the drawn rows leave over is retried, so that exchanges of many sends are common."""
requests = st.builds(
    Request,
    method=st.sampled_from(["GET", "POST", "PATCH", "PUT", "get", "PURGE"]),
    path=st.sampled_from(["/", "/x", "/a%2Fb"]),
    query=st.sampled_from(["", "x=1", "x-a=%35&x-a=x", "&&="]),
    headers=some_headers,
    keyed=st.booleans(),
    deadline_at=st.one_of(st.just(float("inf")), st.floats(0, 100), st.floats(0, 5000)),
)
answers = st.builds(
    Attempt,
    number=st.integers(1, 7),
    status=statuses,
    headers=some_headers,
    body=bodies,
    waited_seconds=st.floats(0, 100),
)
failures = st.builds(
    Attempt,
    number=st.integers(1, 7),
    failure=st.sampled_from(FailureKind),
    written=st.booleans(),
    pooled=st.booleans(),
    waited_seconds=st.floats(0, 100),
)
attempts = st.one_of(answers, failures)
many_attempts = st.lists(attempts, min_size=2, max_size=12)
nows = st.builds(Now, monotonic=st.floats(0, 4000), wall=st.floats(0, 4e9))
pressures = st.builds(
    Pressure,
    budget_tokens=st.one_of(st.just(float("inf")), st.floats(0, 5)),
    breaker_open=st.booleans(),
    gate_closed_until=st.one_of(st.just(0.0), st.floats(0, 5000)),
    draining=st.booleans(),
    switched_off=st.booleans(),
    client_gone=st.booleans(),
    replay=st.sampled_from(Replay),
    response_started=st.booleans(),
)
