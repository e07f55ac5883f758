"""The page of third-party software and the bill of materials name what the pins name."""

from __future__ import annotations

import json

from deploy import notices


def test_the_page_is_the_one_that_the_pins_give() -> None:
    written = notices.PAGE.read_text(encoding="utf-8")
    assert written == notices.page(notices.components()), "run `make notices`"
    assert "not told" not in written


def test_the_bill_of_materials_holds_every_pin_with_its_licence() -> None:
    bill = json.loads(notices.bill(notices.components()))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    named = {part["name"]: part["version"] for part in bill["components"]}
    assert named == notices.pins("constraints.txt") | notices.pins("constraints-extras.txt")
    assert all(part["licenses"] and part["purl"].startswith("pkg:pypi/") for part in bill["components"])
