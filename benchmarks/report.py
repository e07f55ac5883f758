"""Rounds become tables: medians, the ratio to Envoy in the same round, what the issue promised and what came.

Plain Markdown, the same on the terminal and in the dated file. It measures nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.cases import PARKED, Case
from benchmarks.load import Sample
from benchmarks.measure import Round
from benchmarks.parked import Parked
from benchmarks.peers import DIRECT, Peer

__all__ = ["Report"]

REFERENCE = "envoy"
MIB = 1 << 20


@dataclass(frozen=True)
class Report:
    rounds: Sequence[Round]
    peers: Sequence[Peer]
    cases: Sequence[Case]

    def markdown(self) -> str:
        parts = [self._main(), self._by_case(), self._parked(), self._promises(), self._troubles()]
        return "\n\n".join(part for part in parts if part) + "\n"

    # --- numbers -------------------------------------------------------------------------------------------

    def value(self, peer: str, case: str, of: Callable[[Sample], float]) -> float | None:
        """The median over the rounds in which this peer finished this case."""
        found = [of(sample) for sample in self._samples(peer, case)]
        return median(found) if found else None

    def ratio(self, peer: str, case: str, of: Callable[[Sample], float], to: str = REFERENCE) -> float | None:
        """The median of the ratios to Envoy, or to another, each within its round."""
        pairs = [(round_.samples.get((peer, case)), round_.samples.get((to, case))) for round_ in self.rounds]
        found = [of(mine) / of(other) for mine, other in pairs if mine and other and of(other)]
        return median(found) if found else None

    def rest(self, peer: str) -> float | None:
        return _median(round_.rss_rest_bytes.get(peer) for round_ in self.rounds)

    def start(self, peer: str) -> float | None:
        return _median(round_.start_seconds.get(peer) for round_ in self.rounds)

    def parked(self, peer: str, of: Callable[[Parked], float]) -> float | None:
        return _median(of(one) if (one := round_.parked.get(peer)) else None for round_ in self.rounds)

    def _samples(self, peer: str, case: str) -> list[Sample]:
        return [sample for round_ in self.rounds if (sample := round_.samples.get((peer, case)))]

    # --- tables --------------------------------------------------------------------------------------------

    def _main(self) -> str:
        names = {case.name for case in self.cases}
        first = next((name for name in ("get", "post", "flaky") if name in names), "")
        if not first and "steady" not in names:
            return ""
        header = ["proxy", "CPU µs/request", "× Envoy", "requests/s", "p50 at 1,000/s", "p99 at 1,000/s"]
        header += ["RSS at rest", "RSS under load", "start to first answer"]
        rows = [self._main_row(peer, first) for peer in self.peers]
        latencies = [self._microseconds(DIRECT, "steady", of) for of in (p50, p99)]
        rows.append(["(no proxy)", "", "", "", *latencies, "", "", ""])
        title = next((case.title for case in self.cases if case.name == first), "1,000 requests/s")
        return f"### {title}\n\n" + table(header, rows)

    def _main_row(self, peer: Peer, first: str) -> list[str]:
        if peer.find() is None:
            return [peer.name, "not installed", *[""] * 7]
        return [
            peer.name,
            number(self.value(peer.name, first, cpu_us), 1),
            number(self.ratio(peer.name, first, cpu_us), 2),
            number(self.value(peer.name, first, per_second), 0),
            self._microseconds(peer.name, "steady", p50),
            self._microseconds(peer.name, "steady", p99),
            megabytes(self.rest(peer.name)),
            megabytes(self.value(peer.name, first, rss_peak)),
            seconds(self.start(peer.name)),
        ]

    def _microseconds(self, peer: str, case: str, of: Callable[[Sample], float]) -> str:
        samples = self._samples(peer, case)
        if samples and sum(s.socket_errors for s in samples) > 0:
            return "overloaded"
        value = self.value(peer, case, of)
        return f"{value:,.0f} µs" if value is not None else ""

    def _by_case(self) -> str:
        cases = [case for case in self.cases if case.kind != PARKED]
        if not cases:
            return ""
        header = ["case", *[peer.name for peer in self.peers if peer.find()]]
        rows = [self._case_row(case) for case in cases if case.kind != "newcomers"]
        rows += [self._latency_row(case) for case in cases if case.name.endswith("-1")]
        rows += [self._bystander_row(case) for case in cases if case.kind == "newcomers"]
        rows += [self._peak_row(case) for case in cases if case.per_mib]
        rows += [self._bad_row(case) for case in cases if case.name == "flaky"]
        return "### CPU µs per request, or per MiB of body (× Envoy)\n\n" + table(header, rows)

    def _case_row(self, case: Case) -> list[str]:
        of = cpu_us_per_mib if case.per_mib else cpu_us
        unit = "µs/MiB" if case.per_mib else "µs"
        return [f"{case.title}, {unit}", *[self._cost(peer, case, of) for peer in self.peers if peer.find()]]

    def _cost(self, peer: Peer, case: Case, of: Callable[[Sample], float]) -> str:
        value, ratio = self.value(peer.name, case.name, of), self.ratio(peer.name, case.name, of)
        if value is None:
            return ""
        return f"{value:,.1f}" + (f" ({ratio:.2f})" if ratio is not None else "")

    def _latency_row(self, case: Case) -> list[str]:
        floor = self.value(DIRECT, case.name, p50) or 0.0
        cells = [
            f"{value - floor:,.0f}" if (value := self.value(peer.name, case.name, p50)) is not None else ""
            for peer in self.peers
            if peer.find()
        ]
        what = "p50 added to the direct one" if floor else "p50"
        return [f"{case.title}, {what}, µs", *cells]

    def _bystander_row(self, case: Case) -> list[str]:
        peers = [peer for peer in self.peers if peer.find()]
        values = [self.value(peer.name, case.name, p99) for peer in peers]
        return [f"{case.title}, p99, ms", *["" if value is None else f"{value / 1000:.1f}" for value in values]]

    def _peak_row(self, case: Case) -> list[str]:
        cells = [megabytes(self.value(peer.name, case.name, rss_peak)) for peer in self.peers if peer.find()]
        return [f"{case.title}, RSS peak", *cells]

    def _bad_row(self, case: Case) -> list[str]:
        cells = []
        for peer in self.peers:
            if peer.find():
                samples = self._samples(peer.name, case.name)
                bad, requests = sum(s.bad_status for s in samples), sum(s.requests for s in samples)
                cells.append(f"{100 * bad / requests:.3f} %" if requests else "")
        return ["… share of 503 that the app still saw", *cells]

    def _parked(self) -> str:
        names = [peer.name for peer in self.peers if self.parked(peer.name, lambda p: p.woken) is not None]
        if not names:
            return ""
        header = ["proxy", "parked", "KiB each", "of it the connection", "answered 200", "earliest, ms"]
        header += ["late p50, ms", "late p99, ms", "late max, ms", "bystander p99, ms", "bystander max, ms"]
        rows = [[name, *self._parked_cells(name)] for name in names]
        return "### Exchanges parked in a Retry-After wait\n\n" + table(header, rows)

    def _parked_cells(self, name: str) -> list[str]:
        wanted: list[tuple[Callable[[Parked], float], int]] = [
            (lambda p: p.count, 0),
            (lambda p: p.bytes_per_parked / 1024, 1),
            (lambda p: p.bytes_per_connection / 1024, 1),
            (lambda p: p.answered_200, 0),
            (lambda p: p.earliest_ms, 1),
            (lambda p: p.late_p50_ms, 1),
            (lambda p: p.late_p99_ms, 1),
            (lambda p: p.late_max_ms, 1),
            (lambda p: p.bystander_p99_ms, 1),
            (lambda p: p.bystander_max_ms, 1),
        ]
        return [number(self.parked(name, of), digits) for of, digits in wanted]

    # --- promises ------------------------------------------------------------------------------------------

    def _promises(self) -> str:
        found = [(text, value, limit, unit) for text, value, limit, unit in self._promised() if value is not None]
        if not found:
            return ""
        rows = [
            [text, f"{value:.2f}{unit}", f"≤ {limit:g}{unit}", "held" if value <= limit else "**missed**"]
            for text, value, limit, unit in found
        ]
        return "### The sidecar against what is asked of it\n\n" + table(["", "measured", "asked", ""], rows)

    def _promised(self) -> Iterable[tuple[str, float | None, float, str]]:
        """Text, value, limit, unit: the list of the issue."""
        yield "CPU, small GET, 32 connections, × Envoy", self.ratio("sidecar", "get", cpu_us), 1.0, ""
        yield "CPU, small POST, 32 connections, × Envoy", self.ratio("sidecar", "post", cpu_us), 1.0, ""
        yield "p50 added, 1 connection, × Envoy", self._added_ratio("get-1"), 1.0, ""
        yield "p99 at 1,000 requests/s, × Envoy", self.ratio("sidecar", "steady", p99), 1.2, ""
        yield "CPU per byte, 100 MiB response, × Envoy", self.ratio("sidecar", "100mib", cpu_us_per_mib), 1.5, ""
        yield "CPU per byte, 10 MiB upload, × Envoy", self.ratio("sidecar", "upload", cpu_us_per_mib), 1.5, ""
        yield "CPU, small GET over TLS, × Envoy", self.ratio("sidecar", "tls", cpu_us), 0.8, ""
        yield "CPU, new TLS connection, × Envoy", self.ratio("sidecar", "tls-new", cpu_us), 2.0, ""
        yield "CPU, new TLS connection, × HAProxy", self.ratio("sidecar", "tls-new", cpu_us, "haproxy"), 1.2, ""
        for case in ("tls-1mib", "tls-100mib", "tls-upload-1mib", "tls-upload"):
            title = next((one.title for one in self.cases if one.name == case), "")
            yield f"CPU per byte, {title}, × Envoy", self.ratio("sidecar", case, cpu_us_per_mib), 1.0, ""
        newcomers = self.value("sidecar", "newcomers", p99)
        yield "bystander during 100 new TLS connections, p99", newcomers / 1000 if newcomers else None, 20.0, " ms"
        yield "RSS at rest, × Envoy", _over(self.rest("sidecar"), self.rest(REFERENCE)), 0.8, ""
        yield "start to first answer", self.start("sidecar"), 0.5, " s"
        yield "one parked exchange", self.parked("sidecar", lambda p: p.bytes_per_parked / 1024), 12.0, " KiB"
        yield "parked, latest wake", self.parked("sidecar", lambda p: p.late_max_ms), 50.0, " ms"
        stall = self.parked("sidecar", lambda p: p.bystander_max_ms)
        yield "parked, longest answer to a bystander", stall, 50.0, " ms"

    def _added_ratio(self, case: str) -> float | None:
        floor = self.value(DIRECT, case, p50)
        mine, other = self.value("sidecar", case, p50), self.value(REFERENCE, case, p50)
        if floor is None or mine is None or other is None:
            return None
        return _over(mine - floor, other - floor)

    def _troubles(self) -> str:
        troubles = [trouble for round_ in self.rounds for trouble in round_.troubles]
        return "### What went wrong\n\n" + "\n".join(f"- {one}" for one in troubles) if troubles else ""


def cpu_us(sample: Sample) -> float:
    return sample.cpu_us


def cpu_us_per_mib(sample: Sample) -> float:
    return sample.cpu_us_per_mib


def per_second(sample: Sample) -> float:
    return sample.per_second


def p50(sample: Sample) -> float:
    return sample.p50_us


def p99(sample: Sample) -> float:
    return sample.p99_us


def rss_peak(sample: Sample) -> float:
    return float(sample.rss_peak_bytes)


def number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def megabytes(value: float | None) -> str:
    return "" if value is None else f"{value / MIB:,.0f} MiB"


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, its columns aligned so that it reads on a terminal too."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [_line(header, widths), _line(["-" * width for width in widths], widths)]
    return "\n".join([*lines, *[_line(row, widths) for row in rows]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _median(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return median(found) if found else None


def _over(value: float | None, other: float | None) -> float | None:
    return value / other if value is not None and other else None
