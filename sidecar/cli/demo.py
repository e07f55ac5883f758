"""``sidecar demo``: a load against a flaky upstream, without and with the sidecar, then the table; offline.

``--stay`` leaves both running instead, to be tried with curl. It prints; ``sidecar.demo`` acts.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import click

from sidecar.app import CannotListen
from sidecar.cli.paint import painter
from sidecar.config.schema.addresses import parse_address
from sidecar.demo.apis.scenes import STORIES
from sidecar.demo.apis.telling import tell
from sidecar.demo.load import Load, Tally
from sidecar.demo.stage import MOUNT, compare, deployment_for, sample_upstream, serving
from sidecar.demo.table import Side, table
from sidecar.demo.upstream import SHAKY, SampleUpstream

__all__ = ["command"]

NAMES = {"without": "without the sidecar", "with": "with the sidecar"}


@click.command("demo")
@click.option("--api", type=click.Choice(list(STORIES)), help="The story of one emulated API and its shipped policy.")
@click.option("--stay", is_flag=True, help="Leave sidecar and sample upstream running, to try with curl.")
@click.option("--upstream", metavar="HOST:PORT", help="The sample upstream alone, for a sidecar that runs elsewhere.")
@click.option(
    "--requests", type=click.IntRange(1, 10_000), default=400, show_default=True, help="Requests of each run."
)
@click.option("--rate", type=click.IntRange(1, 2_000), default=160, show_default=True, help="Requests per second.")
def command(api: str | None, stay: bool, upstream: str | None, requests: int, rate: int) -> None:
    """Show, offline, what the sidecar does for a flaky upstream.

    Sends the same load to a sample upstream that fails on purpose, without the sidecar and with it, and
    prints a table of what was measured. With --api, asks an emulated API what its documentation knows of, and
    shows what becomes of each request under the policy that is shipped for it. Exit codes: 0 fine, 1 could not
    run, 78 configuration.
    """
    if api is not None and stay:
        raise click.UsageError("--api ends by itself: leave --stay out.")
    if upstream is not None:
        if api is not None or stay:
            raise click.UsageError("--upstream runs nothing else: leave --api and --stay out.")
        _run(_upstream(upstream))
    elif api is not None:
        _run(_tell(api))
    else:
        _run(_stay() if stay else _compare(Load(requests, rate)))


def _run(main: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(main)
    except KeyboardInterrupt:
        sys.exit(130)
    except CannotListen as error:
        click.echo(f"sidecar demo: {error} with SIDECAR_LISTEN, or SIDECAR_ADMIN.", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"sidecar demo: {error.strerror or error}", err=True)
        sys.exit(1)


async def _compare(load: Load) -> None:
    click.echo(
        "A sample upstream that fails one call in five: 503, 429 with a hint, connections reset.\n"
        f"{load.requests} requests at {load.per_second:g} a second, twice, "
        "all in this process; nothing leaves this machine."
    )
    without, with_it = await compare(load, _Bar(load).show)
    click.echo()
    head, *rows = table(without, with_it).split("\n")
    paint = painter()
    click.echo("\n".join([paint(head, "bold"), *(paint(row, "green") if "success" in row else row for row in rows)]))
    click.echo()
    _tell_story(with_it)


def _tell_story(side: Side) -> None:
    told = ", ".join(f"{count} {outcome}" for outcome, count in side.tally.outcomes.most_common())
    click.echo(f"What the sidecar says it did: {told}.")
    if side.tally.stories:
        longest = max(side.tally.stories, key=lambda story: (_attempts(story), len(story)))
        click.echo(f"One of them, in the response's own words:  Sidecar: {longest}")
    click.echo("Waits are short here (backoff from 50 ms), so that it ends soon; shipped policies start at 250 ms.")
    click.echo("Try it by hand: sidecar demo --stay")


def _attempts(story: str) -> int:
    found = re.search(r"\battempts=([0-9]+)", story)
    return int(found[1]) if found else 0


async def _tell(api: str) -> None:
    click.echo(
        f"The API `{api}`, emulated from its documentation, behind the sidecar with the shipped policy "
        f"config/policies/{api}.yaml.\nThe app never retries; nothing leaves this machine. A few seconds …\n"
    )
    click.echo(await tell(api))
    click.echo(
        "\nWhy each? See the comments in the policy, and docs/apis.md. Ask: sidecar explain POST URL --status 503"
    )


class _Bar:
    """Progress: one line that moves on a terminal; a line per quarter elsewhere."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._moving = sys.stdout.isatty()

    def show(self, side: str, tally: Tally) -> None:
        share = tally.requests / self._load.requests
        line = f"  {NAMES[side]:<20} {tally.requests:>5} of {self._load.requests}, {tally.succeeded} succeeded"
        if self._moving:
            done = "█" * int(20 * share)
            click.echo(f"\r  {done:░<20}{line}", nl=share >= 1)
        elif tally.requests * 4 // self._load.requests > (tally.requests - 1) * 4 // self._load.requests:
            click.echo(line)


async def _stay() -> None:
    async with (
        sample_upstream() as upstream,
        serving(deployment_for(upstream, os.environ), sys.stderr) as sidecar,
    ):
        here, admin = sidecar.address, sidecar.admin_address
        click.echo(
            f"Sidecar on http://{here.host}:{here.port}, health and metrics on http://{admin.host}:{admin.port}.\n"
            "Sample upstream behind it: fails one call in five, and this one twice in three. In another terminal:\n\n"
            f"  curl -i http://{here.host}:{here.port}{MOUNT}/v1/quote/{SHAKY}\n\n"
            "The same without the sidecar:\n\n"
            f"  curl -i http://127.0.0.1:{upstream.port}/v1/quote/{SHAKY}\n\n"
            "Ctrl-C ends it."
        )
        await _until_told_to_end()
    click.echo("ended")


async def _upstream(written: str) -> None:
    try:
        address = parse_address(written)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--upstream") from None
    sample = SampleUpstream()
    await sample.start(address.host, address.port)
    click.echo(f"Sample upstream on http://{address.host}:{sample.port}; fails one call in five. Ctrl-C ends it.")
    try:
        await _until_told_to_end()
    finally:
        await sample.stop()


async def _until_told_to_end() -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    await told.wait()
