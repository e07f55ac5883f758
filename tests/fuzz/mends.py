"""The mends of proven faults: the edits that take each out again, and the tests that name it.

An edit is looked up by its text, in whichever file of ``sidecar`` has it once: files may move, the text may not change
unnoticed (``without`` says so).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MENDS", "Mend"]

Edit = tuple[str, str]


@dataclass(frozen=True)
class Mend:
    number: int
    """In the list of proven faults; 0: one of the smaller ones."""
    fault: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...] = ()
    """By name, without ``test_``."""
    is_fuzzed: bool = True
    """Whether the fuzz has what it takes: certificates, logins, reports and many tenants are not of its world."""


_PAUSE = "lane.quiet_until = clock.monotonic() + self._pause_seconds(item, lane.failures)"
_QUIET = "lane.quiet_until = clock.monotonic() + round_.hint_seconds + self._pause_seconds(item, lane.failures)"
_DUE = "due_at = self._services.steady_wall() + pause"

MENDS = (
    Mend(
        1,
        "an unknown host is dead after 20 s",
        (
            (
                "            pool.sweep()\n",
                "            pool.sweep()\n            pool._closed = not (pool._configured or pool.size)\n",
            ),
        ),
        ("a_host_without_an_upstream_is_served_after_a_long_pause",),
    ),
    Mend(
        2,
        "a task cancelled before its first step",
        (
            (
                "            self.ended_unsent = self._attempts.is_unsent\n            self._attempts.close()\n",
                '            if getattr(self._attempts, "_has_begun", False):\n                self._attempts.close()\n',
            ),
            (
                "        back = self._adopted\n",
                "        self._has_begun = True  # type: ignore\n        back = self._adopted\n",
            ),
        ),
        ("an_exchange_that_is_cancelled_before_its_first_step_is_not_under_way",),
    ),
    Mend(
        3,
        "an extension method in a tunnel",
        (
            (
                "    copy: RequestMessage = message._replace(**fields)",
                '    copy: RequestMessage = message._replace(**{"method": _common(message.method), **fields})',
            ),
            (
                "def altered(",
                (
                    "def _common(method: str) -> str:\n"
                    '    return method if method in ("GET", "HEAD", "PUT") else "POST"\n\n\n'
                    "def altered("
                ),
            ),
        ),
        ("a_method_goes_through_an_opened_tunnel_as_it_is",),
    ),
    Mend(
        4,
        "a shutdown in the middle of a delivery",
        (
            (
                "            if lane.sleeper is not None:\n                lane.sleeper.cancel()\n            elif lane.exchange",
                (
                    "            if lane.exchange is None and lane.task is not None:\n                lane.task.cancel()\n"
                    "            elif lane.exchange"
                ),
            ),
        ),
        (
            "a_shutdown_while_a_delivery_is_struck_off_the_file_does_not_undo_it",
            "at_whatever_moment_a_shutdown_comes_each_request_is_delivered_once_or_waits",
        ),
    ),
    Mend(
        5,
        "an older answer after a send that may have been applied",
        (("self._buffered if all(self._facts.is_harmless(attempt) for attempt in later) else None", "self._buffered"),),
        ("an_answer_from_before_a_send_that_may_have_been_applied_is_not_the_last_word",),
    ),
    Mend(
        6,
        "refused, yet stored",
        (
            ("            if self._is_withdrawn:\n                return None\n", ""),
            (
                "            if not self._is_begun:\n                self._is_withdrawn = True",
                "            self._is_withdrawn = True",
            ),
        ),
        ("what_is_refused_because_its_time_is_over_is_never_stored",),
    ),
    Mend(
        7,
        "a send after the deadline",
        (
            ("if self._left_seconds() < (LEAST_LEFT_SECONDS if number > 1 else 0.0):", "if False:"),
            ("seconds = min(KEEP_SECONDS, max(0.0, self._left_seconds() / 2))", "seconds = KEEP_SECONDS"),
        ),
        ("nothing_is_sent_when_the_wait_has_outlasted_the_deadline",),
    ),
    Mend(
        8,
        "a hint stops its lane",
        ((_PAUSE, _QUIET),),
        ("an_absurd_hint_for_one_request_does_not_stop_the_others",),
    ),
    Mend(
        9,
        "a lane spins when its upstream was removed",
        (
            ("while not self._stopping and lane.upstream in self._router().destinations:", "while not self._stopping:"),
            (_PAUSE, "lane.quiet_until = 0.0"),
            (_DUE, "due_at = self._services.steady_wall()"),
        ),
        ("a_reload_that_takes_the_upstream_away_lets_its_requests_rest",),
    ),
    Mend(
        10,
        "one tenant's waiting fills another's queue",
        (("        return scopes[-2] if len(scopes) > 1 else scopes[-1]\n", "        return scopes[-1]\n"),),
        ("one_tenants_waiting_does_not_fill_anothers_queue",),
        is_fuzzed=False,
    ),
    Mend(
        11,
        "a hint is lost at a restart",
        ((_PAUSE, _QUIET), (_DUE, "due_at = self._services.steady_wall()")),
        ("a_hint_outlives_a_restart",),
    ),
    Mend(
        12,
        "a reload that touches the breaker forgets what was learnt",
        (
            (
                "        if earlier is not None and earlier.meters is meters:\n",
                "        if earlier is not None and earlier.compiled.policy.breaker == policy.breaker:\n",
            ),
        ),
        ("a_reload_keeps_a_closed_gate_closed",),
        is_fuzzed=False,
    ),
    Mend(
        13,
        "a closed gate is judged by another max_wait",
        (
            (
                "        if (left > ticket.max_wait_seconds or (left > 0",
                "        if (left > 1000.0 or (left > 0",
            ),
        ),
        ("a_closed_gate_is_judged_by_the_max_wait_in_force",),
        is_fuzzed=False,
    ),
    Mend(
        14,
        "a rotated ca_file is not taken over",
        (
            (
                "    trust: str | None = field(default=None, repr=False)\n",
                "    trust: str | None = field(default=None, repr=False, compare=False)\n",
            ),
        ),
        ("a_file_of_authorities_that_was_rotated_in_place_is_taken_over_by_a_reload",),
        is_fuzzed=False,
    ),
    Mend(
        15,
        "a young body is cut",
        (("WINDOW_SECONDS: Final = 5.0", "WINDOW_SECONDS: Final = 0.05"),),
        ("a_body_that_is_young_at_the_deadline_has_a_window_of_its_own",),
    ),
    Mend(
        16,
        "resends after one login without tokens",
        (("        if objection is None and decision.cost > self._tokens():\n", "        if False:\n"),),
        ("a_login_that_serves_many_pays_for_no_more_retries_than_the_budget_has",),
        is_fuzzed=False,
    ),
    Mend(
        17,
        "a report shows keys",
        (
            ('        "key",\n        "otp",\n', '        "otp",\n'),
            ('    "jwt",\n    "key",\n    "passwd",\n', '    "passwd",\n'),
        ),
        ("fields_that_carry_credentials_are_hidden",),
        is_fuzzed=False,
    ),
    Mend(
        18,
        "a path with wildcards blocks the loop",
        (
            (
                '"".join(f"(?>{_ANY_SEGMENTS}*?{block})" for block in middle)',
                '"".join(f"(?:/[^/]*)*{block}" for block in middle)',
            ),
        ),
        ("a_hostile_path_costs_no_more_than_its_length",),
        is_fuzzed=False,
    ),
    Mend(
        19,
        "a secret that cannot be decoded ends the app's connection",
        (
            ("        if not _is_text(value):\n", "        if False:\n"),
            (
                "    except UnicodeDecodeError:\n        raise LoginFailed",
                "    except ZeroDivisionError:\n        raise LoginFailed",
            ),
        ),
        ("a_secret_that_is_no_text_is_a_failed_login_and_never_shown",),
        is_fuzzed=False,
    ),
    Mend(
        20,
        "a hedge's hint is undercut",
        (("                decision = outlast(decision, earlier,", "                outlast(decision, earlier,"),),
        ("a_hint_of_one_of_two_sends_holds_for_the_exchange",),
    ),
    Mend(
        21,
        "two upstreams of one origin share connections",
        (
            ("        pool = self._pools.get((name, origin))\n", '        pool = self._pools.get(("", origin))\n'),
            (
                "            pool = self._pools[name, origin] = Pool(",
                '            pool = self._pools["", origin] = Pool(',
            ),
        ),
        ("each_upstream_has_the_connections_that_it_names",),
        is_fuzzed=False,
    ),
    Mend(
        0,
        "pipelined requests before a FIN",
        (
            (
                "        has_next = self.reader.has_next\n        self.keep_alive",
                "        has_next = False\n        self.keep_alive",
            ),
        ),
        ("whole_requests_before_a_fin_are_all_answered",),
    ),
    Mend(
        0,
        "what a shutdown holds back is not stored",
        (
            (
                "        if self._facts.history or stores:",
                "        stores = stores and not self._facts.history\n        if self._facts.history or stores:",
            ),
        ),
        ("a_wait_that_a_shutdown_cuts_short_is_stored_where_the_table_says_so",),
    ),
    Mend(
        0,
        "a set clock shortens the wait of a stored request",
        (("        return self._wall_at_zero + self.monotonic()\n", "        return self.clock.wall()\n"),),
        ("a_clock_that_is_set_changes_no_wait",),
    ),
    Mend(
        0,
        "a hint is forgotten where a wait is cut short",
        (
            (
                "            exchange.not_before = max(exchange.not_before, ended + decision.hint_seconds)\n",
                "            pass\n",
            ),
            ("        exchange.not_before = max(exchange.not_before, begun + wait.seconds)\n", ""),
        ),
        ("a_hint_outlives_a_restart_in_the_middle_of_a_round", "a_refusal_that_is_stored_keeps_its_hint"),
    ),
)
