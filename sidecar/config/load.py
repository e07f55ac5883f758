"""Files, environment and flags → one ``Loaded``, or a ``ConfigError`` with every mistake at once.

Reads each file once; opens no socket and starts nothing. A second call after a change returns a new value; the old one
stays as it is. Counterparts: ``sidecar.app``, which runs a deployment, and ``sidecar check``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sidecar.config.check.intercept import review_intercept
from sidecar.config.check.outbox import review_outbox
from sidecar.config.check.policy_and_site import review_admin, review_policies, review_site
from sidecar.config.compile.blocks import compile_deployment, compile_policy
from sidecar.config.compile.gateway import read_gateway
from sidecar.config.compile.policies import Chain, Library
from sidecar.config.environment import lay_over
from sidecar.config.schema.site import SiteBlock
from sidecar.config.schema.validate import read_block
from sidecar.config.show.effective import policy_settings, render, site_settings
from sidecar.config.text.document import Document, Mark
from sidecar.config.text.files import Files, default_site
from sidecar.config.text.problems import ConfigError, Problem, sorted_problems
from sidecar.core.decision.policy import Policy
from sidecar.core.settings.deployment import Deployment

__all__ = ["ConfigError", "Loaded", "LoadedPolicy", "Problem", "load_deployment", "load_policy"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A sound configuration."""

    deployment: Deployment
    warnings: tuple[Problem, ...]
    files: tuple[Path, ...]
    """Every file that was read: what a watcher watches."""
    digest: str
    """Digest of the contents of those files; unchanged if they are only touched or moved by a symlink."""
    site: SiteBlock
    chains: tuple[Chain, ...]
    """Every policy in use."""

    @property
    def origins(self) -> dict[str, str]:
        """Each effective value (``listen``, ``policies.default.deadline``) -> where it comes from."""
        site = {setting.path: setting.origin for setting in site_settings(self.site) if setting.origin}
        policies = {
            f"policies.{chain.name}.{setting.path}": setting.origin
            for chain in self.chains
            for setting in policy_settings(chain)
            if setting.origin
        }
        return site | policies

    def text(self) -> str:
        """What is in force, as YAML with the origin of each value: ``sidecar.yaml``, then each policy."""
        parts = [f"# {self.deployment.source or 'built-in configuration'}\n{render(site_settings(self.site))}"]
        for chain in self.chains:
            walk = " extends ".join(source.document.name for source in chain.sources)
            parts.append(f"# policy {chain.name}: {walk}\n{render(policy_settings(chain))}")
        return "---\n".join(parts)


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A sound policy file, on its own."""

    policy: Policy
    warnings: tuple[Problem, ...]
    chain: Chain


def load_deployment(
    path: Path | None, *, environ: Mapping[str, str], overrides: Mapping[str, str] | None = None
) -> Loaded:
    """The configuration in force: flag > environment > file > default.

    ``path`` is ``sidecar.yaml``; None: ``default_site``, else the built-in one. ``overrides`` are flags by setting
    (``{"log.format": "json"}``). Raises ``ConfigError`` with all that is wrong.
    """
    path = path or default_site(environ)
    files = Files()
    document = files.parse(path) if path else Document("built-in configuration", is_file=False)
    problems = list(document.problems)
    laid_over = lay_over(document, environ, overrides or {})
    site, found = read_block(SiteBlock, document)
    problems += [*laid_over, *found]
    folder = path.parent if path else Path()
    library = Library(files, folder / "policies" if path else None)
    chains: dict[str, Chain | None] = {}
    if site is not None:
        chains = {name: library.chain(name, mark) for name, mark in _policy_names(site)}
        problems += review_site(site, files, folder)
        problems += review_admin(site, environ)
        gateway, found = read_gateway(site, environ, files, folder)
        problems += found
        problems += review_outbox(site, filter(None, chains.values()))
        problems += review_intercept(site, files, folder)
    problems += [*library.problems, *review_policies(library.chains)]
    _raise_if_wrong(problems, files)
    policies = {name: compile_policy(chain) for name, chain in chains.items() if chain is not None}
    assert site is not None  # noqa: S101 - without a site there was a problem
    return Loaded(
        deployment=replace(
            compile_deployment(site, policies, str(path) if path else "", files.judged),
            access=gateway.access,
            tunnels=gateway.tunnels,
            outbound=gateway.outbound,
            shared=gateway.shared,
        ),
        warnings=sorted_problems(problems),
        files=files.paths,
        digest=files.digest,
        site=site,
        chains=tuple(chain for chain in chains.values() if chain is not None),
    )


def load_policy(path: Path) -> LoadedPolicy:
    """One policy file on its own; what it extends is looked for beside it. Raises ``ConfigError``."""
    files = Files()
    library = Library(files, path.parent)
    chain = library.chain_at(path)
    problems = [*library.problems, *review_policies(library.chains)]
    _raise_if_wrong(problems, files)
    assert chain is not None  # noqa: S101 - without a chain there was a problem
    return LoadedPolicy(compile_policy(chain), sorted_problems(problems), chain)


def _policy_names(site: SiteBlock) -> Iterator[tuple[str, Mark | None]]:
    yield site.default_policy, site.value_mark("default_policy") if site.sets("default_policy") else None
    for upstream in site.upstreams:
        if upstream.policy is not None:
            yield upstream.policy, upstream.value_mark("policy")
        if upstream.shadow is not None:
            yield upstream.shadow, upstream.value_mark("shadow")
        for route in upstream.routes:
            yield route.policy, route.value_mark("policy")


def _raise_if_wrong(problems: list[Problem], files: Files) -> None:
    if any(not problem.is_warning for problem in problems):
        raise ConfigError(problems, files.paths, files.digest)
