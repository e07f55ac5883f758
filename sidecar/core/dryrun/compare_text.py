"""What a new configuration changes, in words and as one JSON object. It words what ``compare`` found.

Used by ``sidecar diff``, and by the answer to a reload.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sidecar.core.dryrun.compare import Comparison, Difference, Result, SettingChange, Told, Verdict
from sidecar.core.dryrun.explain import decision_text, explain_object
from sidecar.core.dryrun.story_words import count_text, row_text

__all__ = ["comparison_object", "comparison_text", "is_same", "ranges_text", "summary_text"]

Paint = Callable[[str, str], str]
"""(text, colour name) -> text."""

SHOWN_PLACES: Final = 5
"""Upstreams named in one line."""
SHOWN_SITUATIONS: Final = 20
"""Policy tests or exchanges that are listed in the text; the JSON has all that are kept."""


def plain(text: str, _colour: str) -> str:
    """No colour."""
    return text


def is_same(found: Comparison) -> bool:
    """Whether nothing is different: no setting, no judgement, and nothing that a setting refers to."""
    return not (found.settings or found.added or found.removed or found.all_differences or found.told) and (
        found.same_contents
    )


def summary_text(found: Comparison) -> str:
    """One line for the log."""
    if is_same(found):
        return "nothing is different"
    differences = found.all_differences
    parts = [
        count_text(len(found.settings), "setting"),
        "1 difference in judgement" if differences == 1 else f"{differences} differences in judgement",
    ]
    if found.given:
        parts.append(f"{len(found.told)} of {count_text(found.given, 'recent exchange')} judged differently")
    return ", ".join(parts)


def comparison_text(found: Comparison, paint: Paint = plain) -> str:
    """For a person; several lines, without an end of line after the last."""
    if is_same(found):
        return f"the same: no setting differs{_all_alike(found)}"
    lines = list(_setting_lines(found, paint))
    lines += [f"  {paint('+', 'green')} upstream {name}" for name in found.added]
    lines += [f"  {paint('-', 'red')} upstream {name}: nothing leads to it any more" for name in found.removed]
    if lines:
        lines.insert(0, paint("settings", "bold"))
    elif not found.same_contents:
        lines.append("no setting differs; what one of them refers to does (a file, or a secret)")
    lines += ["", *_judgement_lines(found, paint)]
    if found.told:
        lines += ["", paint(f"{len(found.told)} of {_tests(found.given)} judged differently", "bold")]
        lines += [line for told in found.told[:SHOWN_SITUATIONS] for line in _told_lines(told, paint)]
        if len(found.told) > SHOWN_SITUATIONS:
            lines.append(f"  … and {len(found.told) - SHOWN_SITUATIONS} more")
    elif found.given:
        lines += ["", f"{_tests(found.given)} alike"]
    if found.not_judged:
        lines += ["", f"{_tests(len(found.not_judged))} not judged: not both have a policy in use for them"]
    if found.needs_restart:
        lines += ["", paint(f"needs a restart to take effect: {', '.join(found.needs_restart)}", "yellow")]
    return "\n".join(lines)


def _tests(number: int) -> str:
    return "1 test or exchange" if number == 1 else f"{number} tests and exchanges"


def _all_alike(found: Comparison) -> str:
    judged = found.judged + found.given
    return f", and {count_text(judged, 'situation')} are judged alike" if judged else ""


def _setting_lines(found: Comparison, paint: Paint) -> Iterator[str]:
    width = min(44, max((len(change.path) for change in found.settings), default=0))
    for change in found.settings:
        note = paint("  (needs a restart)", "yellow") if change.needs_restart else ""
        yield f"  {change.path:<{width}}  {_change_text(change, paint)}{note}"


def _change_text(change: SettingChange, paint: Paint) -> str:
    if change.before is None:
        return paint(f"+ {change.after}", "green")
    if change.after is None:
        return paint(f"- {change.before}", "red")
    return f"{change.before} → {change.after}"


def _judgement_lines(found: Comparison, paint: Paint) -> Iterator[str]:
    if found.all_differences:
        yield paint(f"judged differently ({found.judged:,} situations compared)", "bold")
    elif found.judged:
        yield f"{count_text(found.judged, 'situation')} judged alike"
    else:
        yield "every policy judges as before"
    for difference in found.differences:
        yield from _difference_lines(difference, paint)
    if found.all_differences > len(found.differences):
        yield f"  … and {found.all_differences - len(found.differences)} more"
    if found.unjudged:
        yield f"  {count_text(found.unjudged, 'kind')} of request not compared: there are too many"
    if found.unmade_rows:
        shown = ", ".join(found.unmade_rows[:SHOWN_PLACES]) + (" …" if len(found.unmade_rows) > SHOWN_PLACES else "")
        yield f"  no answer could be made up for what these rows match; a policy test can tell: {shown}"


def _difference_lines(difference: Difference, paint: Paint) -> Iterator[str]:
    places = "; ".join(difference.where[:SHOWN_PLACES])
    if len(difference.where) > SHOWN_PLACES:
        places += f" and {len(difference.where) - SHOWN_PLACES} more"
    given = f" with {difference.given}" if difference.given else ""
    results = ranges_text(difference.results)
    yield f"  {places}  {' '.join(difference.methods)}{f'  {results}' if results else ''}{given}"
    yield from _verdict_lines(difference.before, difference.after, paint)


def _told_lines(told: Told, paint: Paint) -> Iterator[str]:
    which = f", answer {told.answer}" if len(told.situation.answers) > 1 else ""
    yield f"  {told.situation.name}{which}"
    yield from _verdict_lines(told.before, told.after, paint)


def _verdict_lines(before: Verdict, after: Verdict, paint: Paint) -> Iterator[str]:
    yield f"    {paint('old', 'red')}  {_verdict_text(before)}"
    yield f"    {paint('new', 'green')}  {_verdict_text(after)}"


def _verdict_text(verdict: Verdict) -> str:
    decision = verdict.decision
    if decision is None:
        return verdict.words
    return f"{decision_text(decision)}  [{verdict.policy}, {row_text(decision.row)}]"


def ranges_text(results: Sequence[Result]) -> str:
    """``429 500-504 reset``"""
    runs: list[tuple[int, int]] = []
    for status in sorted(result for result in results if isinstance(result, int)):
        if runs and status == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], status)
        else:
            runs.append((status, status))
    words = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    return " ".join([*words, *(str(result) for result in results if not isinstance(result, int))])


def comparison_object(found: Comparison) -> dict[str, object]:
    """The object of ``sidecar diff --format json`` and of a reload; its keys are a contract."""
    return {
        "same": is_same(found),
        "settings": [
            {
                "path": change.path,
                "old": change.before,
                "new": change.after,
                "needs_restart": change.needs_restart,
            }
            for change in found.settings
        ],
        "needs_restart": list(found.needs_restart),
        "upstreams": {"added": list(found.added), "removed": list(found.removed)},
        "judged": found.judged,
        "not_compared": found.unjudged,
        "rows_without_answer": list(found.unmade_rows),
        "differences_in_all": found.all_differences,
        "differences": [
            {
                "where": list(difference.where),
                "methods": list(difference.methods),
                "results": ranges_text(difference.results).split(),
                "given": difference.given,
                "old": _verdict_object(difference.before),
                "new": _verdict_object(difference.after),
            }
            for difference in found.differences
        ],
        "situations": {
            "judged": found.given,
            "not_judged": list(found.not_judged),
            "different": [
                {
                    "name": told.situation.name,
                    "answer": told.answer,
                    "old": _verdict_object(told.before),
                    "new": _verdict_object(told.after),
                }
                for told in found.told
            ],
        },
    }


def _verdict_object(verdict: Verdict) -> dict[str, object]:
    if verdict.decision is None:
        return {"policy": verdict.policy, "decision": None, "words": verdict.words}
    told = explain_object("", verdict.policy, verdict.decision)
    del told["upstream"]
    return told
