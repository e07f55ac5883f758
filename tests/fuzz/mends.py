"""The mends of proven faults, each as the edits that take it out again.

An edit is looked up by its text, in whichever file of ``sidecar`` has it once: files may move, the text may not change
unnoticed (``without`` says so).
"""

from __future__ import annotations

__all__ = ["MENDS"]

MENDS: dict[str, tuple[tuple[str, str], ...]] = {
    "01 a lane spins when its upstream was removed": (
        ("while not self._stopping and lane.upstream in self._router().destinations:", "while not self._stopping:"),
        ("lane.quiet_until = clock.monotonic() + self._pause_seconds(item, lane.failures)", "lane.quiet_until = 0.0"),
        ("due_at = clock.wall() + pause", "due_at = clock.wall()"),
    ),
    "02 a hint stops its lane": (
        (
            "lane.quiet_until = clock.monotonic() + self._pause_seconds(item, lane.failures)",
            "lane.quiet_until = clock.monotonic() + round_.hint_seconds + self._pause_seconds(item, lane.failures)",
        ),
    ),
    "03 a hint is lost at a restart": (
        (
            "lane.quiet_until = clock.monotonic() + self._pause_seconds(item, lane.failures)",
            "lane.quiet_until = clock.monotonic() + round_.hint_seconds + self._pause_seconds(item, lane.failures)",
        ),
        ("due_at = clock.wall() + pause", "due_at = clock.wall()"),
    ),
    "04 refused, yet stored": (
        ("            if self._is_withdrawn:\n                return None\n", ""),
        (
            "            if not self._is_begun:\n                self._is_withdrawn = True",
            "            self._is_withdrawn = True",
        ),
    ),
    "05 an older answer after a send that may have been applied": (
        ("self._kept if all(self._judging.is_harmless(attempt) for attempt in later) else None", "self._kept"),
    ),
    "06 a task cancelled before its first step": (
        (
            "        if self._attempts is not None:\n            self._attempts.close()\n        if self._sending",
            '        if getattr(self._attempts, "_has_begun", False):\n            self._attempts.close()\n        if self._sending',
        ),
        (
            "        back = self._adopted\n",
            "        self._has_begun = True  # type: ignore\n        back = self._adopted\n",
        ),
    ),
    "07 a send after the deadline": (
        ("if self._left_seconds() < (LEAST_LEFT_SECONDS if number > 1 else 0.0):", "if False:"),
        ("seconds = min(KEEP_SECONDS, max(0.0, self._left_seconds() / 2))", "seconds = KEEP_SECONDS"),
    ),
    "14 a hedge's hint is undercut": (
        ("                decision = outlast(decision, earlier,", "                outlast(decision, earlier,"),
    ),
    "15 pipelined requests before a FIN": (
        ("        has_next = self.intake.has_next\n", "        has_next = False\n"),
    ),
    "20 what a shutdown holds back is not stored": (
        (
            "        if self._judging.history or stores:",
            "        stores = stores and not self._judging.history\n        if self._judging.history or stores:",
        ),
    ),
    "23 an unknown host is dead after 20 s": (
        (
            "            pool.sweep()\n",
            "            pool.sweep()\n            pool._closed = not (pool._configured or pool.size)\n",
        ),
    ),
    "25 a young body is cut": (("WINDOW_SECONDS: Final = 5.0", "WINDOW_SECONDS: Final = 0.05"),),
    "29 a shutdown in the middle of a delivery": (
        (
            "            if lane.sleeper is not None:\n                lane.sleeper.cancel()\n            elif lane.app",
            "            if lane.app is None:\n                lane.task.cancel()\n            elif lane.app",
        ),
    ),
    "32 an extension method in a tunnel": (
        (
            "    copy: RequestMessage = message._replace(**fields)",
            '    copy: RequestMessage = message._replace(**{"method": _common(message.method), **fields})',
        ),
        (
            "def altered(",
            (
                'def _common(method: str) -> str:\n    return method if method in ("GET", "HEAD", "PUT") else "POST"\n\n\n'
                "def altered("
            ),
        ),
    ),
}
