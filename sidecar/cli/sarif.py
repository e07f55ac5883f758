"""Problems of a configuration as SARIF 2.1.0 (OASIS, 2020), for code scanners.

It words what was found and finds nothing. Counterpart: ``check``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar import __version__
from sidecar.config.text.problems import Code, Problem, page_of

__all__ = ["sarif"]

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(problems: Sequence[Problem]) -> dict[str, object]:
    """One run, with a rule for each code that was found (section 3.14)."""
    codes = list(dict.fromkeys(problem.code for problem in problems))
    driver = {"name": "sidecar", "version": __version__, "rules": [_rule(code) for code in codes]}
    results = [_result(problem, codes.index(problem.code)) for problem in problems]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: Code) -> dict[str, object]:
    number, name = code.value
    return {"id": number, "name": name, "shortDescription": {"text": name}, "help": {"text": f"see {page_of(code)}"}}


def _result(problem: Problem, index: int) -> dict[str, object]:
    text = problem.message + (f"; {problem.help}" if problem.help else "")
    place: dict[str, object] = {"artifactLocation": {"uri": problem.file}}
    if problem.line:
        place["region"] = {
            "startLine": problem.line,
            "startColumn": problem.column,
            "endColumn": problem.column + problem.width,
        }
    return {
        "ruleId": problem.code.value[0],
        "ruleIndex": index,
        "level": "warning" if problem.is_warning else "error",
        "message": {"text": text},
        "locations": [{"physicalLocation": place}],
    }
