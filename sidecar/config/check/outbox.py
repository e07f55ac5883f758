"""Whether policies that store have an outbox, and whether storing fits their routes.

The keys themselves are in ``schema.site``; the outbox is opened by ``sidecar.outbox``, never here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sidecar.config.compile.policies import Chain
from sidecar.config.schema.site import SiteBlock
from sidecar.config.text.problems import Code, Problem
from sidecar.core.enums import UNSTORED_METHODS, Verb

__all__ = ["review_outbox"]


def review_outbox(site: SiteBlock, chains: Iterable[Chain]) -> list[Problem]:
    """``chains``: every policy that the site uses."""
    problems = list(_routes(site))
    if site.outbox is None and not site.lost("outbox"):
        problems += [problem for chain in chains for problem in _rows_without(chain)]
    return problems


def _routes(site: SiteBlock) -> Iterator[Problem]:
    for upstream in site.upstreams:
        for route in upstream.routes:
            mark = route.value_mark("store")
            if route.store is None or mark is None:
                continue
            if site.outbox is None and not site.lost("outbox"):
                text = "`store: always` needs an outbox, and there is none"
                yield mark.problem(Code.CONTRADICTION, text, "add `outbox: {file: outbox.db}`")
            reading = sorted(UNSTORED_METHODS & set(route.methods or UNSTORED_METHODS))
            if reading:
                which = f"{', '.join(reading)} would get" if route.methods else "requests that read would get"
                yield mark.problem(
                    Code.CONTRADICTION,
                    f"{which} a receipt in place of an answer",
                    "name the methods that write, such as `methods: [POST]`",
                )


def _rows_without(chain: Chain) -> Iterator[Problem]:
    for _, row in chain.rows:
        mark = row.value_mark("then")
        if row.then is Verb.STORE and mark is not None:
            yield mark.problem(
                Code.NO_EFFECT,
                "`then: store` has no effect without an outbox: the answer is handed over",
                "add `outbox: {file: outbox.db}` to sidecar.yaml",
            )
