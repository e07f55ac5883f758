"""``sidecar top``: the last minutes of a running sidecar, live in the terminal. It reads ``/debug/numbers`` only.

The same figures as the page's first rows: saved, cost, gave up, held now; then a line for each upstream. Counterpart:
``sidecar.observe.snapshot``.
"""

from __future__ import annotations

import select
import shutil
import sys
import termios
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import orjson

from sidecar.cli.admin_port import ask, config_option, place_of, url_option
from sidecar.cli.paint import painter
from sidecar.observe.pretty import Paint, plain
from sidecar.observe.sanitize import clean
from sidecar.observe.trend import Slot

__all__ = ["command", "frame"]

BARS: Final = "▁▂▃▄▅▆▇█"
LINE_SLOTS: Final = 24
"""Slots of the time line: two minutes."""
HOME: Final = "\x1b[H"
CLEAR_LINE: Final = "\x1b[K"
CLEAR_BELOW: Final = "\x1b[J"
OTHER_SCREEN, BACK = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""xterm's alternate screen, without the cursor: the previous content comes back."""


@click.command("top")
@url_option
@config_option
@click.option("--once", is_flag=True, help="Print one frame and end; so it does where the output is no terminal.")
@click.option(
    "--every", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Seconds between two frames."
)
def command(url: str | None, config: Path | None, once: bool, every: float) -> None:
    """Show what a running sidecar saves, costs, gives up and holds, live. q or Ctrl-C ends it."""
    place = place_of(url, config)
    if once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        click.echo(frame(_numbers(place), painter()))
        return
    paint = painter()
    with _screen():
        while True:
            text = frame(_numbers(place), paint, shutil.get_terminal_size().lines - 1)
            sys.stdout.write(HOME + "".join(f"{line}{CLEAR_LINE}\n" for line in text.split("\n")) + CLEAR_BELOW)
            sys.stdout.flush()
            if _is_over(every):
                return


def _numbers(place: tuple[str, int]) -> dict[str, Any]:
    try:
        numbers: dict[str, Any] = orjson.loads(ask(place, "GET", "/debug/numbers", {}))
    except orjson.JSONDecodeError:
        raise click.ClickException(f"{place[0]}:{place[1]} is no sidecar: it answers something else") from None
    return numbers


@contextmanager
def _screen() -> Iterator[None]:
    """Read keys one by one, without echo; the terminal is restored on every path."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        sys.stdout.write(OTHER_SCREEN)
        yield
    except KeyboardInterrupt:
        pass
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        sys.stdout.write(BACK)
        sys.stdout.flush()


def _is_over(seconds: float) -> bool:
    """Wait for the next frame, or a key; True if that was q, or the input has ended."""
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable) and sys.stdin.read(1) in ("q", "Q", "")


def frame(numbers: Mapping[str, Any], paint: Paint = plain, most_lines: int = 1000) -> str:
    """``/debug/numbers`` as text; at most ``most_lines`` lines."""
    upstreams = numbers["upstreams"]
    slots = [Slot(*slot) for upstream in upstreams for slot in upstream["trend"] if slot]
    held = sum(sum(upstream["held"].values()) for upstream in upstreams)
    minutes = numbers["trend"]["slot_seconds"] * numbers["trend"]["slots"] / 60
    bad = [check["name"] for check in numbers["checks"] if not check["ok"]]
    state = paint(f"not ready: {', '.join(bad)}", "red") if bad else paint("ready", "green")
    version = clean(str(numbers["build"].get("version", "")), 40)
    lines = [
        f"sidecar {version}  {state}  {numbers['inflight']} under way  last {minutes:g} min",
        _first_row(slots, held, paint),
        "",
        paint(_columns("upstream", "state", "requests", "sends/req", "saved", "gave up", "held", "budget", ""), "dim"),
    ]
    lines += [_upstream(upstream, paint) for upstream in upstreams]
    if len(lines) > most_lines:
        hidden = len(lines) - most_lines + 1
        lines = [*lines[: most_lines - 1], paint(f"… and {hidden} more upstreams", "dim")]
    return "\n".join(lines)


def _first_row(slots: Sequence[Slot], held: int, paint: Paint) -> str:
    requests, sends = sum(slot.requests for slot in slots), sum(slot.sends for slot in slots)
    saved, lost = sum(slot.saved for slot in slots), sum(slot.gave_up for slot in slots)
    extra, waited = sum(slot.extra for slot in slots), sum(slot.waited_seconds for slot in slots)
    return "   ".join(
        [
            f"saved {paint(str(saved), 'green')} of {requests} ({_share(saved, requests)})",
            f"cost +{extra} sends (+{_share(extra, sends - extra)}), {waited:.1f} s waited",
            f"gave up {paint(str(lost), 'red') if lost else 0} ({_share(lost, requests)})",
            f"held now {paint(str(held), 'yellow') if held else 0}",
        ]
    )


def _upstream(upstream: Mapping[str, Any], paint: Paint) -> str:
    slots = [Slot(*slot) if slot else Slot() for slot in upstream["trend"]]
    requests, sends = sum(slot.requests for slot in slots), sum(slot.sends for slot in slots)
    state = str(upstream.get("state", ""))
    off = upstream.get("retries_off")
    shown = "retries off" if off else state
    line = _columns(
        clean(str(upstream["name"]), 24),
        shown,
        str(requests),
        f"{sends / requests:.2f}" if requests else "-",
        str(sum(slot.saved for slot in slots)),
        str(sum(slot.gave_up for slot in slots)),
        str(sum(upstream["held"].values())),
        f"{upstream['budget_tokens']:.0f}",
        _bars([slot.requests for slot in slots[-LINE_SLOTS:]]),
    )
    colour = "yellow" if off or state not in ("flowing", "") else ""
    return paint(line, colour) if colour else line


def _columns(name: str, state: str, *figures: str) -> str:
    *numbers, line = figures
    return f"{name:<24} {state:<12}" + "".join(f"{number:>10}" for number in numbers) + f"  {line}".rstrip()


def _bars(counts: Sequence[int]) -> str:
    most = max(counts, default=0)
    return "".join(BARS[round(count / most * (len(BARS) - 1))] if count else " " for count in counts) if most else ""


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole > 0 else "0 %"
