"""``sidecar simulate``: storms on a virtual clock, the engine beside stand-ins for what is common elsewhere.

Writes a page, a JSON file and a table. It prints and writes; ``sidecar.simulate`` runs the storms.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click
import orjson

from sidecar.config.load import load_deployment, load_policy
from sidecar.core.decision.policy import Policy
from sidecar.simulate.page import html_page
from sidecar.simulate.picture import png_picture
from sidecar.simulate.run import Stood, Team, budgeted, fixed, replicas, stand
from sidecar.simulate.storms import STORMS, BadStorm, Storm, storm_from_file

__all__ = ["command"]

STAND_INS: dict[str, tuple[str, Team]] = {
    "fixed": ("fixed retries, no budget", fixed),
    "budget": ("fixed retries, 20 % budget", budgeted),
}


@click.command("simulate")
@click.option(
    "--policy", "policies", multiple=True, metavar="NAME|FILE", help="Policy of the sidecars; several: side by side."
)
@click.option(
    "--upstream-model",
    "models",
    multiple=True,
    metavar="|".join(STORMS) + "|FILE",
    help="Storm, or a JSON file; several: one after another. Default: all.",
)
@click.option(
    "--replicas",
    "--clients",
    "clients",
    type=click.IntRange(1, 100_000),
    default=1,
    show_default=True,
    help="Sidecars, among which the load is dealt out (--clients is its old name).",
)
@click.option("--rate", type=click.FloatRange(0.01, 1e5), help="Requests per second in all.")
@click.option("--seconds", type=click.FloatRange(0.1, 600), help="How long they are offered.")
@click.option(
    "--sharing",
    type=click.Choice(["without", "with", "both"]),
    help="Whether the sidecars share what they know. Default: both, where there are several.",
)
@click.option(
    "--against", multiple=True, type=click.Choice([*STAND_INS, "none"]), help="Stand-ins beside them. Default: all."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of chance: the same seed is the same run.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the page here.")
@click.option("--png", type=click.Path(dir_okay=False, path_type=Path), help="Write the pictures here.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    help="Write the numbers here; - for the terminal.",
)
def command(
    policies: tuple[str, ...],
    models: tuple[str, ...],
    clients: int,
    rate: float | None,
    seconds: float | None,
    sharing: str | None,
    against: tuple[str, ...],
    seed: int,
    html: Path | None,
    png: Path | None,
    json_path: Path | None,
) -> None:
    """Run storms on a virtual clock and show what would happen.

    Nothing is sent anywhere: the engine that serves meets model upstreams, beside stand-ins for fixed retries without
    a budget and with one. Exit codes: 0 fine, 1 could not write, 2 usage, 78 configuration.
    """
    storms = [_varied(_storm(name), rate, seconds) for name in models or STORMS]
    teams = [*_sidecars(policies or ("default",), clients, sharing), *_stand_ins(against)]
    results = [[_stood(storm, name, team, seed) for name, team in teams] for storm in storms]
    click.echo(_told(results), err=str(json_path) == "-")
    about = f"{clients:,} sidecar{'s' if clients > 1 else ''}, seed {seed}."
    if html is not None:
        _write(html, html_page(results, about).encode())
    if png is not None:
        _write(png, png_picture(results))
    if json_path is not None:
        _write(json_path, orjson.dumps(list(_objects(results)), option=orjson.OPT_INDENT_2) + b"\n")


def _storm(name: str) -> Storm:
    if name in STORMS:
        return STORMS[name]
    if not Path(name).exists():
        raise click.BadParameter(
            f"`{name}` is neither a file nor one of {', '.join(STORMS)}.", param_hint="--upstream-model"
        )
    try:
        return storm_from_file(Path(name))
    except BadStorm as error:
        raise click.BadParameter(str(error), param_hint="--upstream-model") from None


def _varied(storm: Storm, rate: float | None, seconds: float | None) -> Storm:
    """The storm with the given rate and time; either makes a load that does not wait for responses."""
    if rate is None and seconds is None:
        return storm
    return replace(storm, workers=0, rate=rate or storm.rate, seconds=seconds or storm.seconds)


def _sidecars(policies: Sequence[str], clients: int, sharing: str | None) -> Iterator[tuple[str, Team]]:
    ways = {"without": [False], "with": [True], "both": [False, True]}[
        sharing or ("both" if clients > 1 else "without")
    ]
    for name in policies:
        policy = _policy(name)
        for shared in ways:
            what = "sidecar" if len(policies) == 1 else f"sidecar, {policy.name}"
            how = "" if clients == 1 else f"{clients:,} sharing" if shared else f"{clients:,} each alone"
            yield (f"{what}, {how}" if how else what), replicas(policy, clients, shared=shared)


def _policy(name: str) -> Policy:
    if Path(name).suffix in (".yaml", ".yml") or os.sep in name:
        return load_policy(Path(name)).policy
    return load_deployment(None, environ=os.environ, overrides={"default_policy": name}).deployment.default_policy


def _stand_ins(against: tuple[str, ...]) -> Iterator[tuple[str, Team]]:
    for name in against or STAND_INS:
        if name in STAND_INS:
            yield STAND_INS[name]


def _stood(storm: Storm, name: str, team: Team, seed: int) -> Stood:
    with_bar = sys.stderr.isatty()

    def show(share: float) -> None:
        if with_bar:
            click.echo(f"\r{storm.name:<10} {name:<32} {share:>4.0%}", nl=False, err=True)

    stood = stand(name, storm, team, seed, show)
    if with_bar:
        click.echo("\r" + " " * 60 + "\r", nl=False, err=True)
    return stood


def _told(results: Sequence[Sequence[Stood]]) -> str:
    """The table for the terminal."""
    head = f"{'storm':<10} {'side':<30} {'ok':>8} {'calls':>7} {'in trouble':>10} {'p50':>8} {'p99':>8} {'ended':>8}"
    lines = [head, "-" * len(head)]
    for sides in results:
        for side in sides:
            found = side.figures()
            trouble = f"{found['amplification_in_trouble']:.2f}" if side.storm.trouble[1] else ""
            times = " ".join(f"{found[key]:>7.3f}s" for key in ("p50_seconds", "p99_seconds"))
            lines.append(
                f"{side.storm.name:<10} {side.name:<30} {found['ok_share']:>8.2%} {found['calls_per_request']:>7.3f} "
                f"{trouble:>10} {times} {found['ended_seconds']:>7.1f}s"
            )
    return "\n".join(lines)


def _objects(results: Sequence[Sequence[Stood]]) -> Iterator[dict[str, object]]:
    for sides in results:
        for side in sides:
            stats = side.stats
            yield {
                "storm": side.storm.name,
                "side": side.name,
                "figures": side.figures(),
                "reasons": dict(stats.reasons),
                "slice_seconds": stats.slice_seconds,
                "offered": stats.offered.values,
                "sent": stats.sent.values,
                "succeeded": stats.succeeded.values,
                "held": stats.held,
            }


def _write(path: Path, data: bytes) -> None:
    if str(path) == "-":
        click.echo(data.decode(), nl=False)
        return
    try:
        path.write_bytes(data)
    except OSError as error:
        click.echo(f"sidecar simulate: {path} cannot be written: {error.strerror}.", err=True)
        sys.exit(1)
