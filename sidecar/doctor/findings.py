"""What the doctor can find: a closed list of faults with stable codes, and one finding."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["CheckKind", "Finding"]


class CheckKind(Enum):
    """Code, name, and whether a set-up with it is broken (``error``) or only worth a look (``warning``).

    D0 the configuration · D1 variables · D2 the sidecar · D3 the way to the upstreams · D4 the clock · D5 trust ·
    D6 a second layer of retries · D7 the machine.
    """

    CONFIGURATION = ("D001", "configuration", "error")
    NO_VARIABLE = ("D101", "no-proxy-variable", "error")
    ONE_CASE = ("D102", "one-case-only", "error")
    CASES_DIFFER = ("D103", "cases-differ", "error")
    MALFORMED = ("D104", "proxy-malformed", "error")
    ELSEWHERE = ("D105", "proxy-elsewhere", "error")
    BYPASSED = ("D106", "upstream-bypassed", "error")
    LOOPBACK_PROXIED = ("D107", "loopback-proxied", "error")
    METADATA_PROXIED = ("D108", "metadata-proxied", "error")
    TUNNELLED = ("D109", "https-only-tunnelled", "warning")
    NODE_SWITCH = ("D110", "node-switch-missing", "error")
    NO_POINTER = ("D111", "nothing-points-here", "warning")
    UNREACHABLE = ("D201", "sidecar-unreachable", "error")
    NOT_A_SIDECAR = ("D202", "not-a-sidecar", "error")
    NOT_READY = ("D203", "not-ready", "error")
    RELOAD_FAILED = ("D204", "reload-failed", "error")
    NO_ADMIN = ("D205", "admin-unreachable", "warning")
    STORE_LOST = ("D206", "shared-store-lost", "warning")
    UNKNOWN_NAME = ("D301", "name-unknown", "error")
    ORIGIN_UNREACHABLE = ("D302", "origin-unreachable", "error")
    CERTIFICATE = ("D303", "certificate-refused", "error")
    CLOCK = ("D401", "clock-off", "error")
    NO_TRUST_FILE = ("D501", "trust-file-missing", "error")
    NOT_TRUSTED = ("D502", "sidecar-not-trusted", "error")
    AUTHORITY = ("D503", "authority-unfit", "error")
    APP_RETRIES = ("D601", "app-retries-too", "error")
    SECOND_LAYER = ("D602", "second-layer", "error")
    FEW_FILES = ("D701", "few-files", "error")

    @property
    def code(self) -> str:
        return self.value[0]

    @property
    def title(self) -> str:
        return self.value[1]

    @property
    def is_error(self) -> bool:
        return self.value[2] == "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    ailment: CheckKind
    subject: str
    """The variable, the upstream, the address."""
    message: str
    """What is wrong, in a sentence."""
    fix: str
    """What to do about it."""
