"""An upstream's certificate is judged, always: what is not right is a 502 that says so, and nothing is sent."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import trustme

from sidecar.config.load import load_deployment
from tests.behaviour.conftest import Make
from tests.support.upstream import Upstream, tls_server

LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)


def pem(certificate: trustme.LeafCert, folder: Path) -> str:
    path = folder / "leaf.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(path))
    return str(path)


@pytest.mark.parametrize("what", ["expired", "for another name", "of an authority nobody trusts"])
async def test_a_certificate_that_is_not_right_is_never_accepted(
    make: Make, authority: trustme.CA, authority_file: str, tmp_path: Path, what: str
) -> None:
    if what == "expired":
        leaf = authority.issue_cert("localhost", not_before=LONG_AGO, not_after=LONG_AGO + datetime.timedelta(days=1))
    elif what == "for another name":
        leaf = authority.issue_cert("elsewhere.example")
    else:
        leaf = trustme.CA().issue_cert("localhost")
    async with Upstream.start(tls=tls_server(pem(leaf, tmp_path))) as upstream:
        sidecar = await make(upstream, scheme="https", more=f"    ca_file: {authority_file}")
        answer = await sidecar.ask("POST", "/api/x", [("Authorization", "Bearer secret")], body=b"secret")
        assert answer.status == 502
        assert "tls_certificate_error" in str(answer.headers.get("Proxy-Status"))
        assert upstream.requests == []


async def test_a_file_of_authorities_that_was_rotated_in_place_is_taken_over_by_a_reload(
    make: Make, authority: trustme.CA, authority_file: str, tmp_path: Path
) -> None:
    async with Upstream.start(tls=tls_server(pem(authority.issue_cert("localhost"), tmp_path))) as upstream:
        sidecar = await make(upstream, scheme="https", more=f"    ca_file: {authority_file}")
        assert (await sidecar.ask("GET", "/api/x")).status == 200

        trustme.CA().cert_pem.write_to_path(authority_file)  # the old authority is withdrawn
        sidecar.sidecar.apply(load_deployment(sidecar.path, environ={}).deployment)
        answer = await sidecar.ask("GET", "/api/x")
        assert answer.status == 502
        assert "tls_certificate_error" in str(answer.headers.get("Proxy-Status"))
        assert len(upstream.requests) == 1


async def test_a_certificate_that_is_refused_is_asked_for_once(make: Make, authority_file: str, tmp_path: Path) -> None:
    async with Upstream.start(tls=tls_server(pem(trustme.CA().issue_cert("localhost"), tmp_path))) as upstream:
        sidecar = await make(upstream, scheme="https", more=f"    ca_file: {authority_file}")
        assert (await sidecar.ask("GET", "/api/x")).status == 502
        record = await sidecar.record()
        assert [(str(attempt.failure), attempt.written) for attempt in record.attempts] == [("tls", False)]
        assert (record.reason, sidecar.clock.waits) == ("attempts", [])
