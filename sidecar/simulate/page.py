"""The page of a simulation: one self-contained HTML file, a row of pictures for each storm, a column for each side.

The same scale for every side of a storm, so that the eye may compare. Everything shown was counted in ``stats``.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from sidecar.simulate.charts import Chart, Line, nice_top, svg
from sidecar.simulate.run import Stood

__all__ = ["html_page"]

MOST_POINTS: Final = 150
LONGEST_SHOWN_SECONDS: Final = 120.0
USUAL_SHARE: Final = 0.95
ABOVE: Final = 1.15

COLUMNS: Final = (
    ("requests", "requests", "{:,.0f}"),
    ("ok_share", "succeeded", "{:.2%}"),
    ("calls_per_request", "calls per request", "{:.3f}"),
    ("amplification_in_trouble", "calls per request in the trouble", "{:.2f}"),
    ("p50_seconds", "p50", "{:.3f} s"),
    ("p99_seconds", "p99", "{:.3f} s"),
    ("p50_after_seconds", "p50 from 2 s after the trouble", "{:.3f} s"),
    ("settled_seconds", "settled after", "{:.2f} s"),
    ("ended_seconds", "ended", "{:.1f} s"),
    ("early", "sent early", "{:,.0f}"),
    ("applied_twice", "applied twice", "{:,.0f}"),
)
ONLY_WITH_TROUBLE: Final = {"amplification_in_trouble", "p50_after_seconds", "settled_seconds"}

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2330;--dim:#667085;--line:#d8dde6;--page:#f6f7f9;--card:#fff;--offered:#98a2b3;
--sent:#d9730d;--succeeded:#12805c;--held:#2563c9;--amplification:#9333a8;--band:#c8322b14}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--dim:#98a2b3;--line:#333b49;--page:#12161d;--card:#1a202a;
--offered:#79859a;--sent:#f0984a;--succeeded:#3fbf8f;--held:#6ea3f5;--amplification:#d07be3;--band:#ff6b6224}}
*{box-sizing:border-box}body{margin:0;padding:2rem clamp(1rem,4vw,3rem);background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}h1{font-size:1.5rem;margin:0 0 .25rem}h2{font-size:1.15rem;margin:0 0 .2rem}
h3{font-size:.95rem;margin:0 0 .5rem}p{margin:.2rem 0;color:var(--dim);max-width:75ch}
section{margin:1.6rem 0;padding:1.2rem;background:var(--card);border:1px solid var(--line);border-radius:10px}
.wide{overflow-x:auto}table{border-collapse:collapse;margin:.8rem 0;font-variant-numeric:tabular-nums;font-size:.88rem}
th,td{padding:.28rem .6rem;text-align:right;border-bottom:1px solid var(--line)}th{font-weight:600;color:var(--dim);
vertical-align:bottom;max-width:8.5rem}td{white-space:nowrap}th:first-child,td:first-child{text-align:left;color:var(--ink);font-weight:600;
white-space:nowrap}.sides{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:1rem}
.side{min-width:0}figure{margin:0 0 .7rem}figcaption{font-size:.8rem;color:var(--dim)}svg{width:100%;height:auto;
display:block}.grid{stroke:var(--line);stroke-width:1}.tick{fill:var(--dim);font:9.5px system-ui,sans-serif}
.band{fill:var(--band)}.line{fill:none;stroke-width:1.6}.area{stroke:none;opacity:.16}
.line.offered{stroke:var(--offered);stroke-dasharray:4 3}.line.sent{stroke:var(--sent)}
.line.succeeded{stroke:var(--succeeded)}.area.succeeded{fill:var(--succeeded)}.line.held{stroke:var(--held)}
.area.held{fill:var(--held)}.line.amplification{stroke:var(--amplification)}.key{display:inline-block;width:1.4em;
height:.25em;margin:0 .35em 0 .9em;vertical-align:middle;border-radius:2px}.key:first-child{margin-left:0}
"""

LEGEND: Final = "".join(
    f'<span class="key" style="background:var(--{name})"></span>{text}'
    for name, text in (
        ("offered", "offered by the apps"),
        ("sent", "sent to the upstream"),
        ("succeeded", "succeeded"),
        ("held", "waiting in the sidecars"),
        ("amplification", "calls per request"),
    )
)


def html_page(storms: Sequence[Sequence[Stood]], about: str) -> str:
    """The page: one section for each storm, in it one column for each side. ``about`` says what was run."""
    sections = "".join(_section(sides) for sides in storms)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>Storms, simulated</title>'
        f"<style>{STYLE}</style></head><body><h1>Storms, simulated</h1>"
        f"<p>{escape(about)} Virtual time: the retry engine that serves, against model upstreams. "
        "The shaded band is when the upstream was in trouble; every side of a storm is drawn to the same scale, "
        "and a spike of a moment is cut at the top.</p>"
        f"<p>{LEGEND}</p>{sections}</body></html>\n"
    )


def _section(sides: Sequence[Stood]) -> str:
    storm = sides[0].storm
    load = (
        f"{storm.requests:,} {storm.method} requests by {storm.workers} workers, each as fast as it can"
        if storm.workers
        else f"{storm.rate:g} {storm.method} requests a second for {storm.seconds:g} s"
    )
    parameters = ", ".join(f"{key} {value}" for key, value in storm.parameters.items())
    told = f"{load}; upstream model {storm.model}{f' ({parameters})' if parameters else ''}"
    columns = "".join(_column(sides, index) for index in range(len(sides)))
    return (
        f'<section><h2>{escape(storm.name)}</h2><p>{escape(told)}</p><div class="wide">{_table(sides)}</div>'
        f'<div class="sides">{columns}</div></section>'
    )


def _table(sides: Sequence[Stood]) -> str:
    begin, end = sides[0].storm.trouble
    shown = [column for column in COLUMNS if end > begin or column[0] not in ONLY_WITH_TROUBLE]
    heads = "".join(f"<th>{title}</th>" for _, title, _ in shown)
    rows = ""
    for side in sides:
        figures = side.figures()
        cells = "".join(f"<td>{form.format(figures[key])}</td>" for key, _, form in shown)
        rows += f"<tr><td>{escape(side.name)}</td>{cells}</tr>"
    return f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _column(sides: Sequence[Stood], index: int) -> str:
    seconds = _shown_seconds(sides)
    slice_seconds = _slice_seconds(sides, seconds)
    lines = [_lines(side, slice_seconds) for side in sides]
    figures = ""
    for number, title in enumerate(("per second", "waiting", "calls per request")):
        top = nice_top(_high([value for each in lines for line in each[number] for value in line.values]))
        chart = Chart(title, lines[index][number], slice_seconds, seconds, top, sides[0].storm.trouble)
        figures += f"<figure><figcaption>{title}</figcaption>{svg(chart)}</figure>"
    return f'<div class="side"><h3>{escape(sides[index].name)}</h3>{figures}</div>'


def _high(values: Sequence[float]) -> float:
    """What nearly all of them do not exceed: a spike of a moment must not flatten everything else."""
    ordered = sorted(value for value in values if value > 0)
    return ordered[min(len(ordered) - 1, int(len(ordered) * USUAL_SHARE))] * ABOVE if ordered else 1.0


def _shown_seconds(sides: Sequence[Stood]) -> float:
    return nice_top(min(LONGEST_SHOWN_SECONDS, max(side.stats.ended_at for side in sides)))


def _slice_seconds(sides: Sequence[Stood], seconds: float) -> float:
    """So wide that there are not too many points; a whole number of the tally's own."""
    own = sides[0].stats.slice_seconds
    return own * max(2 if seconds > 4 else 1, round(seconds / own / MOST_POINTS))


def _lines(side: Stood, slice_seconds: float) -> tuple[tuple[Line, ...], ...]:
    """The lines of the three charts of a side."""
    stats = side.stats
    group = round(slice_seconds / stats.slice_seconds)
    offered, sent, succeeded = (
        [count / slice_seconds for count in _grouped(series.values, group)]
        for series in (stats.offered, stats.sent, stats.succeeded)
    )
    held = [float(value) for value in stats.held[::group]]
    calls = _ratios(stats.sent.values, stats.offered.values, max(1, round(1.0 / stats.slice_seconds)), group)
    return (
        (Line("succeeded", succeeded, True), Line("offered", offered), Line("sent", sent)),
        (Line("held", held, True),),
        (Line("amplification", calls),),
    )


def _grouped(values: Sequence[int], group: int) -> list[int]:
    return [sum(values[n : n + group]) for n in range(0, len(values), group)]


def _ratios(sent: Sequence[int], offered: Sequence[int], window: int, group: int) -> list[float]:
    """Sends per offered request over the second before each moment; 0 where nothing was offered."""
    found = []
    for n in range(0, len(sent), group):
        first = max(0, n + group - window)
        asked = sum(offered[first : n + group])
        found.append(sum(sent[first : n + group]) / asked if asked else 0.0)
    return found
