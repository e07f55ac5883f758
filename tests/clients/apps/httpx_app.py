"""An app on httpx, as it comes."""

from __future__ import annotations

import sys

import httpx

answer = httpx.get(sys.argv[1], timeout=20)
print(answer.status_code, answer.text)
sys.exit(not answer.is_success)
