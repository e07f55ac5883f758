"""Files of policy tests → cases for ``core.dryrun.expectations``, or a ``ConfigError`` with every mistake at once.

A case that cannot happen is a mistake, too: more responses than the policy ever sends, or a reason that needs traffic.
The tested policies are checked as well. Nothing is played here: ``sidecar test`` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidecar.config.check.policy_and_site import review_policies
from sidecar.config.compile.blocks import compile_policy
from sidecar.config.compile.policies import Library
from sidecar.config.load import load_deployment
from sidecar.config.schema.fields import Block, clip
from sidecar.config.schema.tests import AnswerBlock, CaseBlock, ExpectBlock, RowExpectBlock, TestsBlock, WaitExpectBlock
from sidecar.config.schema.validate import read_block
from sidecar.config.text.document import Mark
from sidecar.config.text.files import Files, name_of
from sidecar.config.text.problems import Code, ConfigError, Problem, nearest
from sidecar.core.decision.attempt import Attempt, Headers
from sidecar.core.decision.conditions import LOOK_BYTES
from sidecar.core.decision.policy import Policy
from sidecar.core.dryrun.expectations import Case, Expected
from sidecar.core.dryrun.replay import NEVER_SENT, request_of
from sidecar.core.enums import Reason
from sidecar.core.settings.deployment import Deployment, Upstream

__all__ = ["load_cases"]

NEEDS_TRAFFIC: Final = frozenset(
    {
        Reason.BODY_TOO_LARGE,
        Reason.SPOOL_FAILED,
        Reason.BODY_CONSUMED,
        Reason.RESPONSE_STARTED,
        Reason.BUDGET,
        Reason.BREAKER,
        Reason.GATE,
        Reason.RATE,
        Reason.CONCURRENCY,
        Reason.LOGIN_FAILED,
        Reason.DRAINING,
        Reason.SWITCHED_OFF,
    }
)
"""Reasons that need other traffic; a case is one request by itself."""
NO_UPSTREAM: Final = "-"
"""The upstream's name in a failure where a policy was tested without one."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """What a file tests: an upstream, or a policy."""

    upstream: str
    policy: Policy
    site: Upstream | None = None
    """With its routes; None where the file names a policy."""


def load_cases(paths: Iterable[Path], site: Path | None, *, environ: Mapping[str, str]) -> tuple[Case, ...]:
    """The cases of these files, in order. Raises ``ConfigError`` with all that is wrong.

    ``site`` is the ``sidecar.yaml`` whose ``policies/`` and upstreams are meant; None: the one beside the policies that
    a file stands with. Policies are looked for there, then among the shipped ones.
    """
    shelf = _Shelf(site, environ)
    cases = [case for path in paths for case in shelf.read(path)]
    problems = [*shelf.problems, *shelf.policy_problems()]
    if any(not problem.is_warning for problem in problems):
        raise ConfigError(problems, shelf.files.paths, shelf.files.digest)
    return tuple(cases)


class _Shelf:
    """Reads each file, each policy and each configuration once."""

    def __init__(self, site: Path | None, environ: Mapping[str, str]) -> None:
        self.files = Files()
        self.problems: list[Problem] = []
        self._site = site
        missing = self.files.read(site) if site is not None else None
        if isinstance(missing, Problem):
            self.problems.append(missing)
        self._environ = environ
        self._libraries: dict[Path, Library] = {}
        self._deployments: dict[Path, Deployment | None] = {}

    def policy_problems(self) -> Iterator[Problem]:
        for library in self._libraries.values():
            yield from library.problems
            yield from review_policies(library.chains)

    def read(self, path: Path) -> Iterator[Case]:
        document = self.files.parse(path)
        self.problems += document.problems
        if document.root is None and document.problems:
            return
        block, problems = read_block(TestsBlock, document)
        self.problems += problems
        if block is None:
            return
        subject = self._subject(block, path)
        self.problems += _repeated_names(block)
        for case in block.cases:
            self.problems += _needs_traffic(case)
            if subject is not None:
                policy = self._policy(subject, case)
                self.problems += _too_many(case, policy)
                yield _case(case, document.name, subject.upstream, policy, block.now)

    def _subject(self, block: TestsBlock, path: Path) -> _Subject | None:
        if block.policy is not None:
            policies = self._site.parent / "policies" if self._site else _policies_of(path)
            library = self._libraries.setdefault(policies, Library(self.files, policies))
            chain = library.chain(block.policy, block.value_mark("policy"))
            sound = chain is not None and not any(not problem.is_warning for problem in library.problems)
            return _Subject(NO_UPSTREAM, compile_policy(chain)) if chain is not None and sound else None
        mark = block.value_mark("upstream")
        if block.upstream is None or mark is None:
            return None
        return self._upstream(block.upstream, mark, self._site or _policies_of(path).parent / "sidecar.yaml")

    def _upstream(self, name: str, mark: Mark, site: Path) -> _Subject | None:
        if site not in self._deployments:
            self._deployments[site] = self._deployment(site, mark)
        deployment = self._deployments[site]
        if deployment is None:
            return None
        known = {upstream.name: upstream for upstream in deployment.upstreams}
        found = known.get(name)
        if found is None:
            place = name_of(site)
            remedy = f"{nearest(name, known)}; looked into {place}" if known else f"{place} names none"
            self.problems.append(mark.problem(Code.BAD_VALUE, f"there is no upstream `{clip(name)}`", remedy))
            return None
        return _Subject(name, found.policy, found)

    def _deployment(self, site: Path, mark: Mark) -> Deployment | None:
        if not site.exists():
            text = "an upstream is known by a sidecar.yaml, and there is none"
            remedy = f"name it: -c FILE; looked for {name_of(site)}"
            self.problems.append(mark.problem(Code.BAD_VALUE, text, remedy))
            return None
        try:
            return load_deployment(site, environ=self._environ).deployment
        except ConfigError as error:
            self.problems += error.problems
            return None

    def _policy(self, subject: _Subject, case: CaseBlock) -> Policy:
        """The policy of the first route that matches the request."""
        request = case.request
        route = subject.site.route_of(request.method, request.path) if subject.site is not None else None
        if route is None:
            return subject.policy
        mark = case.value_mark("request")
        if route.store_first and mark is not None:
            text = f"requests of the route {route.path} go into the outbox unsent: nothing comes back to be judged"
            self.problems.append(mark.problem(Code.IMPOSSIBLE_CASE, text, "remove this case"))
        return route.policy


def _policies_of(path: Path) -> Path:
    """The policies that belong to a file of tests: those above ``tests/``, else those beside it."""
    folder = path.absolute().parent
    return Path(name_of(folder.parent if folder.name == "tests" else folder))


def _repeated_names(block: TestsBlock) -> Iterator[Problem]:
    seen: dict[str, CaseBlock] = {}
    for case in block.cases:
        first, mark = seen.setdefault(case.name, case), case.value_mark("name")
        at = first.value_mark("name")
        if first is not case and mark is not None and at is not None:
            text = f"the case on line {at.line + 1} has the same name"
            yield mark.problem(Code.REPEATED_NAME, text, "a name tells which case failed")


def _needs_traffic(case: CaseBlock) -> Iterator[Problem]:
    for expect in (*(answer.expect for answer in case.answers), case.expect):
        if expect is None or expect.reason not in NEEDS_TRAFFIC:
            continue
        mark = expect.value_mark("reason")
        if mark is not None:
            text = f"`{expect.reason}` never comes of a case: it plays one small request by itself"
            yield mark.problem(Code.IMPOSSIBLE_CASE, text, "see `sidecar simulate` for what traffic does")


def _too_many(case: CaseBlock, policy: Policy) -> Iterator[Problem]:
    """More responses than there can be sends."""
    most = max(policy.attempts, *(row.attempts or 0 for row in policy.table.rows), 0)
    if len(case.answers) <= most:
        return
    mark = case.answers[most].key_mark("")
    if mark is not None:
        sends = f"{most} send{'' if most == 1 else 's'}"
        text = f"nothing can come back of send {most + 1}: the policy `{policy.name}` allows {sends} in all"
        yield mark.problem(Code.IMPOSSIBLE_CASE, text, "remove this answer and what follows, or raise `attempts`")


def _case(block: CaseBlock, file: str, upstream: str, policy: Policy, wall: float) -> Case:
    request = block.request
    sent = _headers(request.headers)
    expects = (*(answer.expect for answer in block.answers[:-1]), block.expect)
    return Case(
        name=block.name,
        file=file,
        upstream=upstream,
        policy=policy,
        request=request_of(policy, request.method, request.path, request.query, sent),
        answers=tuple(map(_attempt, block.answers)),
        lines=tuple(_line(answer.key_mark("")) for answer in block.answers),
        expected=tuple(tuple(_expected(expect)) if expect is not None else () for expect in expects),
        wall=wall,
    )


def _attempt(block: AnswerBlock) -> Attempt:
    """The response as the engine sees it: at most ``LOOK_BYTES`` of the body."""
    never_sent = block.failure in NEVER_SENT
    return Attempt(
        number=1,
        status=block.status,
        headers=_headers(block.headers),
        body=None if block.body is None else block.body[:LOOK_BYTES],
        failure=block.failure,
        written=not never_sent if block.written is None else block.written,
        ended_at=block.took or 0.0,
    )


def _headers(fields: tuple[tuple[str, str], ...]) -> Headers:
    return Headers(tuple((name.encode("latin-1"), value.encode("utf-8", "replace")) for name, value in fields))


def _expected(block: ExpectBlock) -> Iterator[Expected]:
    """The expectations under the names of ``explain``; those inside a block under both, as ``wait.from``."""
    for key in type(block).model_fields:
        if not block.sets(key):
            continue
        value = getattr(block, key)
        if isinstance(value, WaitExpectBlock | RowExpectBlock):
            yield from _inside(key, value)
        else:
            yield Expected(key, value, _line(block.key_mark(key)))


def _inside(name: str, block: Block) -> Iterator[Expected]:
    for key, field in type(block).model_fields.items():
        if block.sets(key):
            written = field.alias or key
            yield Expected(f"{name}.{written}", getattr(block, key), _line(block.key_mark(written)))


def _line(mark: Mark | None) -> int:
    return mark.line + 1 if mark is not None else 0
