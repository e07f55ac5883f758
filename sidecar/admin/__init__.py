"""The admin port: health, metrics, the effective configuration, switches and the live page.

``server``    the routes, and the port that they are served on
``guard``     which requests are accepted: host names, cross-site requests, methods · ``token`` which may change
something ``views``     what can be read: health, readiness, configuration, exchanges
``switches``  what can be changed: open what is held, retries off and on, reload
``page``      the page itself · ``story`` one exchange in words
``state``     what the rest of the process hands in

It changes nothing but through ``switches``, and it never sees a body of an app's request.
"""

from __future__ import annotations

from sidecar.admin.server import make_admin, make_runner
from sidecar.admin.state import AdminState, Check, Reload, ReloadResult

__all__ = ["AdminState", "Check", "Reload", "ReloadResult", "make_admin", "make_runner"]
