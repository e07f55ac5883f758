"""``sidecar outbox list|show|retry|drop``: shows the outbox, and retries or drops its dead letters.

It works on the file, also while a sidecar uses it; that sidecar notices within seconds. Credentials are never printed,
and a body only if it is asked for. Counterpart: ``sidecar.outbox``.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import orjson

from sidecar.config.load import load_deployment
from sidecar.observe.redact import redacted_field
from sidecar.observe.sanitize import clean, clean_path
from sidecar.outbox.items import Item, OutboxError
from sidecar.outbox.sqlite import SqliteOutbox

__all__ = ["command"]

_SHOWN_BYTES = 64 << 10


_OPTIONS = (
    click.option("-c", "--config", type=click.Path(path_type=Path), help="sidecar.yaml; else SIDECAR_CONFIG."),
    click.option("--file", metavar="PATH", help="The outbox itself, in place of the configured one."),
)


def _which(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb the options of the group, so that they may be typed after it; there they win."""

    @functools.wraps(function)
    def opened(config: Path | None, file: str | None, **rest: object) -> None:
        given = (config, file) if config is not None or file is not None else click.get_current_context().obj
        function(lambda: _outbox_file(*given), **rest)

    return _OPTIONS[0](_OPTIONS[1](opened))


@click.group("outbox")
@_OPTIONS[0]
@_OPTIONS[1]
@click.pass_context
def command(ctx: click.Context, config: Path | None, file: str | None) -> None:
    """Look into the outbox; send dead letters again, or drop them."""
    ctx.obj = (config, file)


def _outbox_file(config: Path | None, file: str | None) -> SqliteOutbox:
    if file is None:
        rule = load_deployment(config, environ=os.environ).deployment.outbox
        if rule is None:
            raise click.ClickException("this configuration has no `outbox`; name its file with --file")
        file = rule.file
    try:
        return SqliteOutbox.open(file, create=False)
    except OutboxError as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def _opened(make: Callable[[], SqliteOutbox]) -> Iterator[SqliteOutbox]:
    outbox_file = make()
    try:
        yield outbox_file
    except sqlite3.Error as error:
        raise click.ClickException(f"the outbox {outbox_file.path}: {error}") from None
    finally:
        outbox_file.close()


@command.command("list")
@click.option("--dead", is_flag=True, help="Only dead letters.")
@click.option("--upstream", help="Only of this upstream.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@_which
def list_(make: Callable[[], SqliteOutbox], dead: bool, upstream: str | None, form: str) -> None:
    """What is in it, in the order of delivery."""
    now = time.time()
    with _opened(make) as outbox_file:
        ids = outbox_file.ids(dead=True if dead else None, upstream=upstream)
        items = (item for item_id in ids if (item := outbox_file.find(item_id)) is not None)
        if form == "json":
            for item in items:
                click.echo(orjson.dumps(_facts(item, now)))
            return
        for item in items:
            click.echo(_line(item, now))
        counts = outbox_file.counts()
        waiting, gone = sum(count.waiting for count in counts), sum(count.dead for count in counts)
        click.echo(f"{waiting} waiting, {gone} dead, {sum(count.bytes for count in counts)} bytes", err=True)


@command.command("show")
@click.argument("receipt")
@click.option("--body", is_flag=True, help="Also its body, as it will be sent, up to 64 KiB.")
@_which
def show(make: Callable[[], SqliteOutbox], receipt: str, body: bool) -> None:
    """One request: its head, without credentials, and how it stands."""
    with _opened(make) as outbox_file:
        item = outbox_file.find(receipt)
    if item is None:
        raise click.ClickException(f"there is no {clean(receipt, 64)} in the outbox: delivered, dropped or never there")
    for name, value in _facts(item, time.time()).items():
        click.echo(f"{name}: {value}")
    click.echo(f"\n{item.method} {clean_path(item.target)}{'?…' if '?' in item.target else ''}")
    for line in item.fields.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            click.echo(f"{clean(name, 200)}: {clean(redacted_field(name, value.strip()), 500)}")
    if body:
        click.echo("")
        shown = item.body[:_SHOWN_BYTES]
        if sys.stdout.isatty():  # Foreign bytes must not control the terminal.
            click.echo("\n".join(clean(line, _SHOWN_BYTES) for line in shown.decode("utf-8", "replace").split("\n")))
        else:
            sys.stdout.buffer.write(shown)


@command.command("retry")
@click.argument("receipts", nargs=-1)
@click.option("--dead", is_flag=True, help="All dead letters.")
@click.option("--upstream", help="With --dead: only of this upstream.")
@_which
def retry(make: Callable[[], SqliteOutbox], receipts: tuple[str, ...], dead: bool, upstream: str | None) -> None:
    """Put dead letters back to wait, at their old place.

    One that died as `not_safe` may have been applied: sending it again is your decision.
    """
    _each(
        make,
        receipts,
        dead,
        upstream,
        lambda outbox_file, receipt: outbox_file.revive(receipt, time.time()),
        "waits again",
    )


@command.command("drop")
@click.argument("receipts", nargs=-1)
@click.option("--dead", is_flag=True, help="All dead letters.")
@click.option("--upstream", help="With --dead: only of this upstream.")
@_which
def drop(make: Callable[[], SqliteOutbox], receipts: tuple[str, ...], dead: bool, upstream: str | None) -> None:
    """Forget requests for ever; those that wait, too, if they are named."""
    _each(make, receipts, dead, upstream, SqliteOutbox.remove, "dropped")


def _each(
    make: Callable[[], SqliteOutbox],
    receipts: tuple[str, ...],
    dead: bool,
    upstream: str | None,
    act: Callable[[SqliteOutbox, str], bool],
    done: str,
) -> None:
    if bool(receipts) == dead:
        raise click.UsageError("Name receipts, or --dead for all dead letters.")
    missed = 0
    with _opened(make) as outbox_file:
        wanted = receipts or tuple(outbox_file.ids(dead=True, upstream=upstream))
        for receipt in wanted:
            is_done = act(outbox_file, receipt)
            missed += not is_done
            state = done if is_done else "is not there, or was not dead"
            click.echo(f"{clean(receipt, 64)} {state}", err=not is_done)
    if missed:
        sys.exit(1)


def _facts(item: Item, now: float) -> dict[str, object]:
    told: dict[str, object] = {
        "stored": item.id,
        "state": "dead" if item.dead_at is not None else "waiting",
        "upstream": item.upstream,
        "method": item.method,
        "path": clean_path(item.target),
        "age_seconds": round(max(0.0, now - item.stored_at), 1),
        "tries": item.tries,
        "bytes": item.size_bytes,
    }
    if item.note:
        told["last"] = clean(item.note, 200)
    if item.dead_at is None and item.due_at > now:
        told["due_in_seconds"] = round(item.due_at - now, 1)
    if item.dead_at is None and item.aside:
        told["aside"] = True
    if item.dead_at is not None:
        told["reason"] = item.dead_reason
        if item.dead_status is not None:
            told["status"] = item.dead_status
    return told


def _line(item: Item, now: float) -> str:
    facts = _facts(item, now)
    why = " ".join(str(facts[name]) for name in ("reason", "status", "last") if name in facts)
    state = f"{facts['state']:<8}{facts['age_seconds']:>9} s  tries {item.tries:<3}"
    return f"{item.id}  {state} {item.upstream}  {item.method} {facts['path']}  {why}".rstrip()
