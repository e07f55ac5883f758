"""An app on requests, as it comes."""

from __future__ import annotations

import sys

import requests

answer = requests.get(sys.argv[1], timeout=20)
print(answer.status_code, answer.text)
sys.exit(not answer.ok)
