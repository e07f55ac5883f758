"""``python -m sidecar``: the same as the ``sidecar`` command."""

from __future__ import annotations

from sidecar.cli.main import main

if __name__ == "__main__":
    main(prog_name="sidecar")
