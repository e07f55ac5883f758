"""One process: start, reload, drain, end. It handles signals and watched files, nothing else.

SIGTERM or SIGINT: no longer ready, waits cut short, what is under way drained within a limit, one summary line, exit 0;
a second one ends at once. SIGHUP, or changed *content* of a configuration file (Kubernetes swaps symlinks, so inodes
tell nothing): reload, all or nothing. Counterpart: ``app``, what runs.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from typing import Final

from sidecar.admin import ReloadResult
from sidecar.app import Sidecar
from sidecar.config.child_process import ConfigProcessFailed
from sidecar.config.text.contents import digest_of
from sidecar.config.text.problems import ConfigError
from sidecar.config.validated import ConfigInForce, ValidatedConfig
from sidecar.core.dryrun.compare_text import summary_text
from sidecar.observe.situations import situations_of

__all__ = ["ServerProcess"]

WATCH_SECONDS: Final = 2.0
"""Seconds between two reads of the watched files. A poll works with every way of replacing a file."""


class ServerProcess:
    """Runs one sidecar from its first configuration to its end."""

    def __init__(
        self,
        loaded: ValidatedConfig,
        load: Callable[[ConfigInForce], ValidatedConfig],
        *,
        token: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """``load`` reads everything anew and compares it with what is in force; it is called in a thread."""
        self._load = load
        self._loaded = loaded
        self._watched = loaded.files
        self._digest = self._loaded.digest
        self._ending = asyncio.Event()
        self._at_once = asyncio.Event()
        self.sidecar = Sidecar(
            self._loaded.deployment,
            config_text=self._text,
            reload=self.reload,
            token=token,
            environ=environ,
        )

    async def run(self, announce: Callable[[Sidecar, ValidatedConfig], None]) -> None:
        """Until a signal ends it. Raises ``CannotListen``."""
        sidecar = self.sidecar
        await sidecar.start()
        loop = asyncio.get_running_loop()
        reloads = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, reloads.set)
        announce(sidecar, self._loaded)
        watching = loop.create_task(self._watch(reloads), name="watch configuration")
        try:
            await self._ending.wait()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        await self._finish()

    def _text(self) -> str:
        return self._loaded.text()

    def _end(self) -> None:
        if self._ending.is_set():
            self._at_once.set()
        self._ending.set()

    async def _finish(self) -> None:
        sidecar = self.sidecar
        events = sidecar.events
        events.event("draining", connections=sidecar.listener.connections, inflight=sidecar.metrics.inflight)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        draining = loop.create_task(sidecar.drain(sidecar.deployment.limits.drain_seconds))
        at_once = loop.create_task(self._at_once.wait())
        await _first(draining, at_once)
        cut = draining.result() if draining.done() and not draining.cancelled() else sidecar.listener.connections
        events.event(
            "stopped",
            exchanges=sidecar.listener.exchanges,
            cut=cut,
            drained_seconds=round(loop.time() - begun, 3),
            at_once=self._at_once.is_set(),
        )
        await sidecar.stop()

    async def _watch(self, reloads: asyncio.Event) -> None:
        """Watch until cancelled, whatever a read or a reload raises: without this task no signal is handled."""
        while True:
            try:
                try:
                    async with asyncio.timeout(WATCH_SECONDS):
                        await reloads.wait()
                except TimeoutError:
                    await self._reload_if_changed()
                else:
                    reloads.clear()
                    await self.reload()
            except Exception as exc:
                self.sidecar.crashed(exc)

    async def _reload_if_changed(self) -> None:
        if not self._watched:
            return
        digest = await asyncio.to_thread(digest_of, self._watched)
        if digest != self._digest:
            self._digest = digest
            await self.reload()

    async def reload(self, *, dry_run: bool = False) -> ReloadResult:
        """Read everything anew; take it over if it is valid, else keep the old one and log why.

        ``dry_run``: only tell what it would change.
        """
        if dry_run:
            return await self._try_out()
        sidecar = self.sidecar
        wall = sidecar.services.clock.wall()
        try:
            loaded = await self._load_beside()
            later = sidecar.apply(loaded.deployment)
        except (ConfigError, ConfigProcessFailed, OSError) as exc:
            if isinstance(exc, ConfigError) and exc.files:
                # Watch also the files that are only named now: their correction must be noticed.
                self._watched = exc.files
                self._digest = exc.digest
            return self._kept(str(exc), wall)
        except Exception as exc:
            sidecar.crashed(exc)
            return self._kept(f"the configuration could not be taken over ({type(exc).__name__})", wall)
        self._loaded = loaded
        self._watched = loaded.files
        self._digest = loaded.digest
        sidecar.metrics.reloaded(True, wall)
        changed = None if loaded.comparison is None else summary_text(loaded.comparison)
        restart = ", ".join(later) or None
        sidecar.events.event("reloaded", digest=loaded.digest[:12], needs_restart=restart, changed=changed)
        note = f"; needs a restart to take effect: {restart}" if later else ""
        return ReloadResult(ok=True, message=f"reloaded{note}", comparison=loaded.comparison)

    async def _try_out(self) -> ReloadResult:
        """What a reload would change. Nothing is taken over, counted or watched."""
        try:
            loaded = await self._load_beside()
        except (ConfigError, ConfigProcessFailed, OSError) as exc:
            return ReloadResult(ok=False, message=str(exc))
        except Exception as exc:
            self.sidecar.crashed(exc)
            return ReloadResult(ok=False, message=f"the configuration could not be read ({type(exc).__name__})")
        return ReloadResult(ok=True, message="not taken over: a dry run", comparison=loaded.comparison)

    async def _load_beside(self) -> ValidatedConfig:
        """The configuration in the files, compared with the one in force."""
        loaded, records = self._loaded, self.sidecar.recent.find()

        def load() -> ValidatedConfig:
            return self._load(ConfigInForce(loaded.deployment, loaded.settings, tuple(situations_of(records))))

        return await asyncio.to_thread(load)

    def _kept(self, why: str, wall: float) -> ReloadResult:
        """Report that the previous configuration stays in force."""
        self.sidecar.metrics.reloaded(False, wall)
        self.sidecar.events.event("reload_failed", "error", message=why, kept=self._loaded.digest[:12])
        return ReloadResult(ok=False, message=why)


async def _first(*tasks: asyncio.Task[int] | asyncio.Task[bool]) -> None:
    """Wait for one of them, end the others."""
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if not task.done():
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
