"""The storms: which upstream, how many ask for what, for how long. Each can be varied; a JSON file may name its own.

A storm knows nothing of who stands it; the counterpart is ``run``, which puts the two together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, get_args

from sidecar.simulate.composed import Composed
from sidecar.simulate.models import model_from
from sidecar.simulate.upstream import Brownout, Flaky, HintStyle, Outage, Quota, Silent, Timer, Trouble, Upstream

__all__ = ["STORMS", "BadStorm", "Storm", "storm_from", "storm_from_file"]


def _composed(clock: Timer, spec: dict[str, Any], seed: int) -> Upstream:
    """A model of many parts (``models``), out of its JSON."""
    return Composed(clock, model_from(spec), seed)


MODELS: Final[dict[str, Callable[..., Upstream]]] = {
    "composed": _composed,
    "flaky": Flaky,
    "quota": Quota,
    "outage": Outage,
    "brownout": Brownout,
    "post": Silent,
}
PARAMETERS: Final = {
    "composed": {"spec", "seed"},
    "flaky": {"share", "latency"},
    "post": {"share", "latency"},
    "quota": {"rate", "burst", "hint", "style", "announces", "latency"},
    "outage": {"begins", "ends", "latency", "hint", "style", "status", "how"},
    "brownout": {"slots", "service", "slow", "begins", "ends", "queue", "hint"},
}


class BadStorm(ValueError):
    """A file that describes no storm; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Storm:
    """``rate`` requests a second for ``seconds``; or, with ``workers``, ``requests`` as fast as so many workers can."""

    name: str
    model: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    method: str = "GET"
    rate: float = 200.0
    seconds: float = 15.0
    workers: int = 0
    requests: int = 1000
    trouble: tuple[float, float] = (0.0, 0.0)
    """From when to when the amplification is of interest; equal: the whole run."""

    def upstream(self, clock: Timer) -> Upstream:
        """A fresh one, on this clock."""
        return MODELS[self.model](clock, **self.parameters)


STORMS: Final[dict[str, Storm]] = {
    storm.name: storm
    for storm in (
        Storm("flaky", "flaky", workers=50),
        Storm("quota", "quota", workers=100),
        Storm("outage", "outage", trouble=(5.0, 8.0)),
        Storm("post", "post", method="POST", workers=50, requests=500),
        Storm("date", "outage", {"hint": 3.0, "style": "date"}, trouble=(5.0, 8.0)),
        Storm("brownout", "brownout", rate=220.0, trouble=(5.0, 8.0)),
    )
}
"""The shipped ones, by name."""


def storm_from_file(path: Path) -> Storm:
    """``{"model": "outage", "parameters": {"begins": 5, "ends": 20}, "rate": 500, "seconds": 30}``. Raises BadStorm."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadStorm(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise BadStorm(f"{path} is not JSON: {error}") from error
    return storm_from(found, str(path), path.stem)


def storm_from(found: object, where: str, name: str) -> Storm:
    """The same of an object that was read elsewhere; ``where`` is named in what is wrong. Raises BadStorm."""
    if not isinstance(found, dict) or found.get("model") not in MODELS:
        raise BadStorm(f'{where} needs a "model": one of {", ".join(MODELS)}')
    model = found["model"]
    _refuse_unknown(where, "storm", found, {entry.name for entry in fields(Storm)})
    parameters = found.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadStorm(f'{where}: "parameters" is an object')
    _refuse_unknown(where, f"{model} model", parameters, PARAMETERS[model])
    if parameters.get("style", "none") not in get_args(HintStyle):
        raise BadStorm(f'{where}: "style" is one of {", ".join(get_args(HintStyle))}')
    if parameters.get("how", "status") not in get_args(Trouble):
        raise BadStorm(f'{where}: "how" is one of {", ".join(get_args(Trouble))}')
    for key, value in {**parameters, **found}.items():
        _refuse_wrong_kind(where, key, value)
    begins, ends = parameters.get("begins", 5.0), parameters.get("ends", 8.0)
    known = STORMS.get(model, STORMS["flaky"])
    trouble = (begins, ends) if model in ("outage", "brownout") else (0.0, 0.0)
    settings = {key: value for key, value in found.items() if key not in ("trouble", "model")}
    storm = replace(known, **{"name": name, "model": model, "trouble": trouble, **settings})
    return replace(storm, workers=0) if "rate" in found and "workers" not in found else storm


def _refuse_unknown(where: str, what: str, found: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(found) - known)
    if unknown:
        raise BadStorm(f'{where}: a {what} has no "{unknown[0]}"; it has {", ".join(sorted(known))}')


def _refuse_wrong_kind(where: str, name: str, value: object) -> None:
    if name in ("name", "model", "style", "method", "parameters", "trouble", "announces", "how", "spec"):
        return
    if name == "hint" and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e7:
        raise BadStorm(f'{where}: "{name}" is a number from 0 to 10,000,000')
    if name in ("rate", "seconds", "requests", "slots") and value == 0:
        raise BadStorm(f'{where}: "{name}" is more than 0')
    if name in ("slots", "workers", "requests", "queue", "status") and value != int(value):
        raise BadStorm(f'{where}: "{name}" is a whole number')
