"""Every metric family, named once: its type, labels, meaning and the question that it answers.

Names and labels are a contract with users' dashboards. The table in ``docs/metrics.md`` is made from this list and held
equal by a test. It counts nothing. Counterpart: ``metrics``, which does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from sidecar.core.enums import UNKNOWN, FailureKind, HedgeEnd, Outcome, Reason, Verb, WaitFrom
from sidecar.core.flow.scopes import SCOPE_KINDS

__all__ = [
    "DURATION_BUCKETS",
    "FAMILIES",
    "FLOW_CHANGES",
    "FLOW_PARTS",
    "HEDGE_CANCELLED",
    "HELD_BY",
    "METHODS",
    "OTHER",
    "OTHER_METHOD",
    "OVERHEAD_BUCKETS",
    "PROTOCOL_ERRORS",
    "STORE_FAULTS",
    "UNREAD_BODY",
    "WAITED_FROM",
    "Family",
    "label_values",
    "reference_table",
]

OTHER_METHOD: Final = "_OTHER"
"""The method label of every method outside ``METHODS`` (the word of OpenTelemetry's HTTP conventions)."""
OTHER = "other"
"""The result of a status outside 100..599."""

HEDGE_CANCELLED = "hedge_cancelled"
"""The result of a send that was cancelled because the one beside it was quicker."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY")
HELD_BY = ("gate", "breaker", "rate", "concurrency", "wait", "login", "connection")
FLOW_PARTS = ("gate", "rate", "concurrency", "breaker")
WAITED_FROM = (*map(str, WaitFrom), *FLOW_PARTS, "login", "reread", "connection")
"""The values of the label of waits: where the length of a wait before a retry came from, else what held the
exchange.
"""
FLOW_CHANGES = ("hold", "release")
PROTOCOL_ERRORS = (
    "request_line",
    "version",
    "method",
    "target",
    "host",
    "header",
    "framing",
    "head_too_large",
    "target_too_long",
    "timeout",
    OTHER,
)
"""Kinds of malformed requests: the words of ``wire`` and of ``proxy.client``."""
UNREAD_BODY = "unread_body"
"""In place of a shadow policy's verb: it was not judged, since it would have to look into a body that had not come."""
STORE_FAULTS = ("timeout", "connection", "full", "refused", "foreign", OTHER)
"""Why a shared store was not used."""

Edges = tuple[float, ...]
"""Upper edges of the buckets of a histogram, in seconds."""
# Seconds, from a loopback response to a long poll; dense around one second, where objectives usually are.
DURATION_BUCKETS: Edges = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
# Seconds of our own share of a request: tens of microseconds in calm; a millisecond is a finding.
OVERHEAD_BUCKETS: Edges = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.1)

_PREFIX = "sidecar_"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family, as users see it."""

    name: str
    """With prefix and suffix, as in the Prometheus text format."""
    kind: Literal["counter", "gauge", "histogram", "info"]
    labels: tuple[str, ...]
    meaning: str
    question: str
    """What an operator learns from it."""


def _family(
    name: str,
    kind: Literal["counter", "gauge", "histogram", "info"],
    labels: tuple[str, ...],
    meaning: str,
    question: str,
) -> Family:
    return Family(_PREFIX + name, kind, labels, meaning, question)


FAMILIES: tuple[Family, ...] = (
    _family(
        "requests_total",
        "counter",
        ("upstream", "method", "outcome"),
        "Exchanges that ended, by how they ended.",
        "Do the app's calls succeed, and how often only because of a retry?",
    ),
    _family(
        "attempts_total",
        "counter",
        ("upstream", "result"),
        "Sends, by status code or failure; `hedge_cancelled`: the one beside it was quicker.",
        "What does the upstream itself answer, and how much load does it get from us?",
    ),
    _family(
        "retries_total",
        "counter",
        ("upstream", "cause"),
        "Sends after the first, by the status code or failure that caused them.",
        "What do we retry, and how much?",
    ),
    _family(
        "hedges_total",
        "counter",
        ("upstream", "result"),
        "Second sends beside a first that was slow, by what came of them.",
        "Is hedging worth what it costs?",
    ),
    _family(
        "retries_suppressed_total",
        "counter",
        ("upstream", "reason"),
        "Errors that were not retried (again), by reason.",
        "Why did it stop retrying?",
    ),
    _family(
        "shadow_decisions_total",
        "counter",
        ("upstream", "actual", "shadow"),
        "Answers that an upstream's shadow policy judged as well, by what was done and what it would have done.",
        "What would the new policy do differently, before it acts?",
    ),
    _family(
        "upstream_errors_total",
        "counter",
        ("upstream", "code"),
        "Error answers of upstreams whose policy says where their code stands (`errors.code`), by that code.",
        "Which of its own errors does the API answer?",
    ),
    _family(
        "logins_total",
        "counter",
        ("upstream",),
        "Logins that were begun, for an upstream with a `login`.",
        "How often is a token renewed: as often as it expires, or at every request?",
    ),
    _family(
        "login_failures_total",
        "counter",
        ("upstream",),
        "Logins that brought no token.",
        "Are the credentials still good?",
    ),
    _family(
        "request_duration_seconds",
        "histogram",
        ("upstream", "outcome"),
        "From the app's request head to the end of its answer, waits included.",
        "How long does the app wait, and how long when a retry was needed?",
    ),
    _family(
        "attempt_duration_seconds",
        "histogram",
        ("upstream",),
        "From the first byte of one send to its response head or failure.",
        "How fast is the upstream itself?",
    ),
    _family(
        "wait_seconds",
        "histogram",
        ("upstream", "from"),
        "Times in which an exchange stood still: before a retry by where the length came from, else by what held it.",
        "What does waiting cost the app, and by what: the upstream, our backoff, or flow control?",
    ),
    _family(
        "overhead_seconds",
        "histogram",
        (),
        "The sidecar's own share of an exchange: its duration without sends and waits.",
        "Is the sidecar itself slow?",
    ),
    _family(
        "inflight_requests",
        "gauge",
        (),
        "Exchanges that are open now.",
        "How busy is it?",
    ),
    _family(
        "held_requests",
        "gauge",
        ("upstream", "by"),
        "Exchanges that are standing still now, by what holds them.",
        "What is everybody waiting for?",
    ),
    _family(
        "gates_closed",
        "gauge",
        ("upstream", "scope"),
        "Scopes that have asked for quiet, by their kind.",
        "Are we rate limited right now, and is it all of the upstream, or one endpoint or credential?",
    ),
    _family(
        "rate_limit_per_second",
        "gauge",
        ("upstream",),
        "Sends a second that the upstream takes, as learnt; the lowest of all scopes, absent where there is none.",
        "How much does it let us send?",
    ),
    _family(
        "concurrency_limit",
        "gauge",
        ("upstream",),
        "Sends under way at once that the upstream takes, as learnt; absent where no limit is in force.",
        "Is it overloaded by what we send at once?",
    ),
    _family(
        "flow_changes_total",
        "counter",
        ("upstream", "by", "to"),
        "How often a part of flow control began to hold exchanges, and let go again.",
        "Does something flap, and what?",
    ),
    _family(
        "breaker_state",
        "gauge",
        ("upstream",),
        "0 closed, 1 probing, 2 open.",
        "Do we consider the upstream to be down?",
    ),
    _family(
        "budget_tokens",
        "gauge",
        ("upstream",),
        "Retries that the upstream's traffic has earned and not used.",
        "Is the retry budget about to run out?",
    ),
    _family(
        "retries_off",
        "gauge",
        ("upstream",),
        "1 while an operator has turned its retries off.",
        "Are retries still off by mistake?",
    ),
    _family(
        "opened_total",
        "counter",
        ("upstream",),
        "How often an operator made it forget what it had learnt, and let go what was held.",
        "Did an operator step in?",
    ),
    _family(
        "attempts_lost_total",
        "counter",
        ("upstream",),
        "Attempts that counted as under way though no exchange had them, and were given back: a fault of ours.",
        "Are the sidecar's own accounts right, or is there something to report?",
    ),
    _family(
        "buffered_bytes",
        "gauge",
        (),
        "Request bodies held in memory for a replay.",
        "What does the memory go into?",
    ),
    _family(
        "tunnels_total",
        "counter",
        (),
        "Connections relayed unseen (CONNECT, upgrades).",
        "How much traffic passes without retries?",
    ),
    _family(
        "open_tunnels",
        "gauge",
        (),
        "Connections that are being relayed unseen now.",
        "How many tunnels and upgraded connections stand open?",
    ),
    _family(
        "accept_paused",
        "gauge",
        (),
        "1 while new connections wait because the limit of open files is near.",
        "Does an app wait only because the process may open too few files?",
    ),
    _family(
        "accept_pauses_total",
        "counter",
        (),
        "How often accepting connections was paused for that.",
        "Has the limit of open files been too low since the last look?",
    ),
    _family(
        "protocol_errors_total",
        "counter",
        ("kind",),
        "Requests refused because they were malformed or too large.",
        "Does some client speak broken HTTP?",
    ),
    _family(
        "log_dropped_total",
        "counter",
        (),
        "Log lines lost because the output was blocked, full or closed.",
        "Can the log be trusted to be complete?",
    ),
    _family(
        "outbox_items",
        "gauge",
        ("upstream",),
        "Requests in the outbox that wait for their delivery.",
        "Does the outbox drain, or does it fill?",
    ),
    _family(
        "outbox_dead_items",
        "gauge",
        ("upstream",),
        "Dead letters in the outbox: expired or refused, kept for a person.",
        "Is there something that a person has to look at?",
    ),
    _family(
        "outbox_oldest_age_seconds",
        "gauge",
        ("upstream",),
        "Age of the oldest request that waits in the outbox.",
        "For how long has nothing been delivered?",
    ),
    _family(
        "outbox_delivered_total",
        "counter",
        ("upstream",),
        "Requests delivered from the outbox.",
        "Does what was stored arrive?",
    ),
    _family(
        "outbox_dead_total",
        "counter",
        ("upstream",),
        "Requests of the outbox that became dead letters.",
        "Does the upstream refuse what the app was told is accepted?",
    ),
    _family(
        "shared_store_up",
        "gauge",
        (),
        "1 while the store named by `shared` answers, 0 while each replica goes on alone; only where it is configured.",
        "Do the replicas know what the others know?",
    ),
    _family(
        "shared_store_errors_total",
        "counter",
        ("fault",),
        "Operations of that store that failed, and values of somebody else's that were found there.",
        "Why is it not used?",
    ),
    _family(
        "traced_total",
        "counter",
        ("state",),
        "Exchanges whose spans were exported, refused by the collector, or dropped; only where they are asked for.",
        "Are the traces complete, and is the collector there?",
    ),
    _family(
        "config_last_reload_successful",
        "gauge",
        (),
        "1 if the last load of the configuration succeeded, 0 if the one before it is still in force.",
        "Is the configuration that I wrote the one that runs?",
    ),
    _family(
        "config_last_reload_success_timestamp_seconds",
        "gauge",
        (),
        "Unix time of the last successful load.",
        "Since when does this configuration run?",
    ),
    _family(
        "build_info",
        "info",
        ("version", "python", "loop", "aiohttp"),
        "1, with what is running as labels.",
        "Which version is this?",
    ),
)

_STATUS_OR_FAILURE = "a status code 100–599, `other`, " + ", ".join(f"`{word}`" for word in FailureKind)


def label_values() -> dict[str, str]:
    """Label -> the closed list of its values, in words, for the documentation."""
    return {
        "upstream": f"names in the configuration, and `{UNKNOWN}`",
        "method": ", ".join(f"`{method}`" for method in (*METHODS, OTHER_METHOD)),
        "outcome": ", ".join(f"`{outcome}`" for outcome in Outcome),
        "reason": ", ".join(f"`{reason}`" for reason in Reason),
        "result": f"{_STATUS_OR_FAILURE}, `{HEDGE_CANCELLED}`; of `sidecar_hedges_total`: "
        + ", ".join(f"`{end}`" for end in HedgeEnd),
        "cause": _STATUS_OR_FAILURE,
        "code": f"codes that the policy names (in rows, and in `errors.known`), and `{OTHER}`",
        "from": ", ".join(f"`{source}`" for source in WAITED_FROM),
        "by": ", ".join(f"`{holder}`" for holder in HELD_BY)
        + "; of `sidecar_flow_changes_total`: "
        + ", ".join(f"`{part}`" for part in FLOW_PARTS),
        "actual": ", ".join(f"`{verb}`" for verb in Verb),
        "shadow": ", ".join(f"`{verb}`" for verb in Verb)
        + f", or `{UNREAD_BODY}`: not judged, since it needs the body",
        "scope": ", ".join(f"`{kind}`" for kind in SCOPE_KINDS),
        "to": ", ".join(f"`{change}`" for change in FLOW_CHANGES),
        "state": "`exported`, `failed` (the collector did not take them), `queue_full` (dropped)",
        "fault": ", ".join(f"`{fault}`" for fault in STORE_FAULTS),
        "kind": ", ".join(f"`{kind}`" for kind in PROTOCOL_ERRORS),
    }


def reference_table() -> str:
    """The Markdown table of all families for ``docs/metrics.md``."""
    lines = ["| name | type | labels | meaning | the question it answers |", "|---|---|---|---|---|"]
    for family in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in family.labels) or "–"
        lines.append(f"| `{family.name}` | {family.kind} | {labels} | {family.meaning} | {family.question} |")
    return "\n".join(lines)
