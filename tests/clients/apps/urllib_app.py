"""An app on the standard library."""

from __future__ import annotations

import sys
from urllib.error import HTTPError
from urllib.request import urlopen

try:
    with urlopen(sys.argv[1], timeout=20) as answer:
        print(answer.status, answer.read().decode())
except HTTPError as error:
    print(error.code, error.read().decode())
    error.close()
    sys.exit(1)
