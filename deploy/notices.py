"""``python deploy/notices.py``: what is shipped beside our own code, and under which licences.

Writes ``docs/third-party.md`` (a test holds it to the pins) and ``dist/sbom.cdx.json``, a bill of materials in the
form of CycloneDX 1.5 (ECMA-424), from the pins of ``deploy/constraints.txt`` and ``constraints-extras.txt`` and from
what the packages, as installed here, say of themselves. All of them must be installed.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sidecar import __version__  # noqa: E402 - this folder is on the path only now

PAGE = ROOT / "docs" / "third-party.md"
BILL = ROOT / "dist" / "sbom.cdx.json"
HEAD = """\
# Third-party software

What a container image holds beside the sidecar itself and Python, and what `pip install` brings; the extras are marked.
Written by `make notices`. The full texts of the licences lie in each package's `*.dist-info` folder, in the image too.

| package | version | licence | needed |
|---|---|---|---|
"""
OLD_NAMES = {"Apache 2.0": "Apache-2.0", "BSD License": "BSD-3-Clause", "MIT License": "MIT"}
"""What some packages wrote before licence expressions (PEP 639)."""


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "deploy" / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s\\]+)", text, re.MULTILINE))


def licence_of(package: Distribution) -> str:
    """SPDX where the package says so, else the name that it gives."""
    said = package.metadata.json
    if expression := said.get("license_expression"):
        return str(expression)
    classified = [text.rpartition(" :: ")[2] for text in said.get("classifier", ()) if text.startswith("License")]
    named = str(said.get("license") or "").strip()
    found = named if named and len(named) < 40 else ", ".join(classified)
    return OLD_NAMES.get(found, found) or "not told"


def components() -> list[tuple[str, str, str, str]]:
    """Name, version, licence, whether always or by which extra; in the order of their names."""
    shipped = dict.fromkeys(pins("constraints.txt"), "always")
    for name in pins("constraints-extras.txt"):
        shipped.setdefault(name, "extra")
    versions = pins("constraints.txt") | pins("constraints-extras.txt")
    return [
        (name, versions[name], licence_of(distribution(name)), shipped[name]) for name in sorted(shipped, key=str.lower)
    ]


def page(found: list[tuple[str, str, str, str]]) -> str:
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in found)


def bill(found: list[tuple[str, str, str, str]]) -> str:
    listed = [
        {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name.lower()}@{version}",
            "scope": "required" if needed == "always" else "optional",
            "licenses": [{"expression": licence}] if re.fullmatch(r"[\w.+() -]+", licence) else [],
        }
        for name, version, licence, needed in found
    ]
    ours = {"type": "application", "name": "retry-sidecar", "version": __version__}
    document = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": {"component": ours}}
    return json.dumps({**document, "components": listed}, indent=2) + "\n"


def main() -> int:
    found = components()
    PAGE.write_text(page(found), encoding="utf-8")
    BILL.parent.mkdir(exist_ok=True)
    BILL.write_text(bill(found), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}, {BILL.relative_to(ROOT)}: {len(found)} packages\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
