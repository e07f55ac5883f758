"""What the documentation of both ResQ APIs says of each error."""

from __future__ import annotations

from typing import Final

from tests.emulators.scenario import Fact, Then

RESQ_FACTS: Final = {
    "BAD_REQUEST": Fact(Then.NEVER),
    "TOKEN_EXPIRED": Fact(Then.LOGIN),
    "FORBIDDEN": Fact(Then.NEVER),
    "NOT_FOUND": Fact(Then.NEVER),
    "TIMEOUT": Fact(Then.RETRY, sends=2),
    "CONFLICT": Fact(Then.LOOK),
    "VALIDATION": Fact(Then.NEVER),
    "RATE_LIMITED": Fact(Then.RETRY),
    "INTERNAL": Fact(Then.IF_SAFE),
    "UNAVAILABLE": Fact(Then.IF_SAFE),
    "BUSY": Fact(Then.IF_SAFE),
}
