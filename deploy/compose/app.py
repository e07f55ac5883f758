"""An example app: asks for a quote twice a second, never retries, and prints what it got."""

import os
import time
import urllib.error
import urllib.request
from itertools import count

url = os.environ["QUOTES_URL"]
for number in count(1):
    try:
        with urllib.request.urlopen(f"{url}/v1/quote/{number % 50}", timeout=30) as answer:  # noqa: S310 - our own URL
            print(answer.status, answer.headers["Sidecar"], flush=True)
    except (OSError, urllib.error.HTTPError) as error:
        print(error, flush=True)
    time.sleep(0.5)
