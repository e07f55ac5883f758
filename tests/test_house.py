"""The architecture, held by reading the source: who imports whom, who may look at a clock, what stands once.

A rule that fails names the file and what to do. Nothing here runs the code that it reads. Every rule is a property of
the code that cannot be met in the letter only: there is none on lengths, and none on the presence of prose.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sidecar"

LAYERS = {
    "core": set(),
    "wire": {"core"},
    "config": {"core"},
    "observe": {"core"},
    "outbox": {"core"},
    "upstream": {"observe", "wire", "core"},
    "proxy": {"outbox", "upstream", "observe", "wire", "core"},
    "admin": {"upstream", "observe", "core"},
    "shared": {"observe", "core"},
    "tracing": {"observe", "core"},
    "client_setup": set(),
    "intercept": set(),
    "app": {
        "admin",
        "intercept",
        "shared",
        "tracing",
        "proxy",
        "outbox",
        "upstream",
        "observe",
        "wire",
        "config",
        "core",
    },
    "process": {"app", "admin", "proxy", "observe", "config", "core"},
    "demo": {"app", "config", "core"},
    "doctor": {"client_setup", "core"},
    "simulate": {"core"},
}
"""Package -> the packages that it may import besides itself. ``cli`` and ``__main__`` stand above all of them."""

FLOORS = {
    "core": [{"dryrun"}, {"flow"}, {"settings"}, {"decision"}, {"enums", "secret_names"}],
    "config": [
        {"child_process"},
        {"child_main", "policy_tests"},
        {"load", "validated"},
        {"show"},
        {"check"},
        {"compile"},
        {"environment"},
        {"schema"},
        {"text"},
    ],
    "proxy": [
        {"server"},
        {"delivery", "operator"},
        {"tunnel"},
        {"record"},
        {"exchange"},
        {"routing"},
        {"client"},
        {"message"},
    ],
}
"""Inside of a package: each floor imports those below it, never one above."""

# fmt: off
CORE_MAY_IMPORT = {
    "__future__", "bisect", "collections", "dataclasses", "datetime", "email", "enum", "functools", "heapq",
    "itertools", "json", "math", "operator", "re", "typing", "urllib.parse",
}
# fmt: on
"""Nothing that can sleep, read a clock of its own accord, open a file or a socket."""

ONLY_THERE = {
    "yaml": {"config"},
    "prometheus_client": {"observe", "admin"},
    "pydantic": {"config"},
    "click": {"cli"},
    "cryptography": {"intercept"},
    "redis": {"shared"},
    "opentelemetry": {"tracing"},
    "requests": {"tracing"},
}
"""A third-party package -> the packages that may import it."""

CLOCKS_AND_DICE = {
    ("asyncio", "sleep"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("time", "monotonic"),
    ("time", "monotonic_ns"),
    ("time", "perf_counter"),
    ("time", "sleep"),
    ("time", "time"),
    ("time", "time_ns"),
}

MAY_LOOK_AT_THE_CLOCK = {
    "proxy/routing/clock.py": "the one clock: everybody else is handed its time",
    "proxy/message/ids.py": "a new id is a name made of chance; nothing is decided by it",
    "cli/ca.py": "a certificate begins and ends on a date",
    "cli/doctor.py": "the clock itself is what is examined",
    "cli/outbox.py": "ages are measured against the clock of the person who looks",
    "cli/explain.py": "its --now is the wall clock unless the person asking names another time",
    "cli/probe.py": "an answer that comes in drops is cut off in time",
    "demo/upstream.py": "a pretended upstream takes its time and fails by seeded chance",
    "demo/apis/telling.py": "an emulated API is handed the real clock",
    "demo/load.py": "a load keeps a pace",
    "simulate/clock.py": "a virtual clock, and seeded chance: no real time passes",
    "simulate/random_models.py": "a model is drawn from a seed, before its run begins",
}
"""File -> why. Everybody else takes the time, and the chance, as an argument."""

# fmt: off
TOP_LEVEL = {
    "pyproject.toml", "sidecar", "config", "deploy", "tests", "Dockerfile", "README.md", "Makefile", "LICENSE",
    "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks", "docs",
}
# fmt: on

NOT_OURS = {"__pycache__", "dist", "build", "var"}
"""Made by tools, ignored by git; so is whatever begins with a dot and is no file of ours."""


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def sources(top: Path = PACKAGE) -> list[Path]:
    return sorted(path for path in top.rglob("*.py") if not NOT_OURS & set(path.parts))


def package_of(path: Path) -> str:
    """``sidecar/core/decision/table.py`` -> ``core``; ``sidecar/app.py`` -> ``app``."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def label(path: Path) -> str:
    return path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else ROOT).as_posix()


def imports_of(path: Path) -> Iterator[tuple[ast.AST, str]]:
    """Each import with the dotted name of the module that it opens; modules named in a string are imports, too."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{label(path)}:{node.lineno}: relative import; write it out"
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                yield node, deeper if module_file(deeper) else str(node.module)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and module_file(node.value):
            yield node, node.value


def module_file(dotted: str) -> Path | None:
    if not re.fullmatch(r"sidecar(\.\w+)*", dotted):
        return None
    path = ROOT.joinpath(*dotted.split("."))
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)


def line_of(node: ast.AST) -> int:
    return getattr(node, "lineno", 0)


def test_imports_flow_one_way() -> None:
    for path in sources():
        package = package_of(path)
        if package in ("cli", "__main__", "__init__"):
            continue
        assert package in LAYERS, f"{package} is a new package: say in LAYERS whom it may import"
        for node, name in imports_of(path):
            if name.startswith("sidecar."):
                other = name.split(".")[1]
                allowed = {package, *LAYERS[package]}
                assert other in allowed, f"{label(path)}:{line_of(node)}: {package} must not import {other}"


def test_the_floors_of_a_package_import_downward() -> None:
    for package, floors in FLOORS.items():
        number = {name: depth for depth, names in enumerate(floors) for name in names}
        for path in sources(PACKAGE / package):
            inside = path.relative_to(PACKAGE / package).parts[0].removesuffix(".py")
            if inside == "__init__":
                continue
            assert inside in number, f"{package}/{inside} is new: give it a floor in FLOORS"
            for node, name in imports_of(path):
                parts = name.split(".")
                if parts[:2] == ["sidecar", package] and len(parts) > 2 and parts[2] != inside:
                    assert number[parts[2]] > number[inside], (
                        f"{label(path)}:{line_of(node)}: {inside} must not import {parts[2]}, which stands above it"
                    )


def test_a_third_party_package_is_known_only_where_it_belongs() -> None:
    for path in sources():
        for node, name in imports_of(path):
            packages = ONLY_THERE.get(name.split(".")[0])
            if packages is not None:
                assert package_of(path) in packages, f"{label(path)}:{line_of(node)}: only {packages} import {name}"


def test_no_import_stands_inside_a_function() -> None:
    for path in sources():
        for function in functions_of(path):
            for node in ast.walk(function):
                is_import = isinstance(node, ast.Import | ast.ImportFrom)
                assert not is_import, f"{label(path)}:{line_of(node)}: move the import to the top"


def functions_of(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    found = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, found)]


def test_imports_form_no_cycle_not_even_through_strings() -> None:
    opened = {path: {module_file(name) for _, name in imports_of(path)} - {None, path} for path in sources()}
    done: set[Path] = set()

    def walk(path: Path, trail: tuple[Path, ...]) -> None:
        assert path not in trail, "a cycle: " + " -> ".join(map(label, (*trail, path)))
        if path not in done:
            for other in opened[path]:
                assert other is not None
                walk(other, (*trail, path))
            done.add(path)

    for path in sources():
        walk(path, ())


def test_core_imports_only_itself_and_a_short_list() -> None:
    for path in sources(PACKAGE / "core"):
        for node, name in imports_of(path):
            allowed = {name, name.split(".")[0]} & (CORE_MAY_IMPORT | {"sidecar"})
            assert allowed, f"{label(path)}:{line_of(node)}: core must not import {name}"


def test_only_named_files_look_at_a_clock_or_roll_dice() -> None:
    for path in sources():
        if label(path) in MAY_LOOK_AT_THE_CLOCK:
            continue
        for node in ast.walk(tree_of(path)):
            used = _attribute(node)
            is_one = used in CLOCKS_AND_DICE or (used and used[0] in {"random", "secrets"})
            assert not is_one, f"{label(path)}:{line_of(node)}: {used}: take it as an argument (proxy/routing/clock.py)"


def _attribute(node: ast.AST) -> tuple[str, str] | None:
    """``time.time`` and ``from time import time`` alike, as a pair."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.value.id, node.attr
    if isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            if (node.module, alias.name) in CLOCKS_AND_DICE or node.module == "random":
                return node.module, alias.name
    return None


def test_the_clock_list_names_only_files_that_exist() -> None:
    gone = [name for name in MAY_LOOK_AT_THE_CLOCK if not (PACKAGE / name).is_file()]
    assert not gone


def test_the_path_of_a_request_holds_no_client_session_and_no_application() -> None:
    """They resend by themselves and hide whether bytes were written (docs/design.md)."""
    refused = {"ClientSession", "ClientRequest", "Application", "BaseConnector", "TCPConnector"}
    for package in ("wire", "proxy", "upstream"):
        for path in sources(PACKAGE / package):
            names = {n.attr if isinstance(n, ast.Attribute) else getattr(n, "id", "") for n in ast.walk(tree_of(path))}
            assert not names & refused, f"{label(path)} uses {names & refused}"


def test_no_constant_stands_twice() -> None:
    """The same name with the same value in two files: one of them will be changed and the other forgotten."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in sources():
        for node in tree_of(path).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            value = getattr(node, "value", None)
            name = target.id.strip("_") if isinstance(target, ast.Name) else ""
            is_constant = name.isupper() and len(name) > 1  # one letter: a type variable
            if is_constant and value is not None and not isinstance(value, ast.Attribute):
                text = ast.unparse(value)
                if "__file__" not in text:
                    places[name, text].append(label(path))
    twice = {name: files for (name, _), files in places.items() if len(files) > 1}
    assert not twice, f"give each one home: {twice}"


def test_the_front_page_of_a_package_names_every_module_in_it() -> None:
    for page in sources():
        if page.name != "__init__.py" or page.parent == PACKAGE:
            continue
        text = ast.get_docstring(tree_of(page)) or ""
        inside = {
            each.stem for each in page.parent.iterdir() if each.suffix == ".py" or (each / "__init__.py").exists()
        }
        missing = {name for name in inside - {"__init__", "__pycache__"} if f"``{name}``" not in text}
        assert not missing, f"{label(page)} does not say what is in {sorted(missing)}"


def test_no_test_is_skipped() -> None:
    mark = re.compile(r"\bpytest\.(?:skip|importorskip|xfail)\(|\bmark\.(?:skip|skipif|xfail)\b")
    bad = [
        label(path)
        for path in sources(ROOT / "tests")
        if path != Path(__file__) and mark.search(path.read_text("utf-8"))
    ]
    assert not bad, f"a test that cannot run must fail: {bad}"


def test_the_top_level_is_as_designed() -> None:
    names = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert names - NOT_OURS <= TOP_LEVEL, f"not at the top: {sorted(names - NOT_OURS - TOP_LEVEL)}"
    assert names >= TOP_LEVEL, f"missing: {sorted(TOP_LEVEL - names)}"


def text_files() -> Iterator[tuple[Path, str]]:
    ours = [ROOT / ".ci", *(ROOT / name for name in TOP_LEVEL if name != "LICENSE")]
    for top in ours:
        for path in [top] if top.is_file() else top.rglob("*"):
            if path.is_file() and not NOT_OURS & set(path.parts):
                yield path, path.read_bytes().decode("utf-8", "replace")


def test_no_file_names_an_index_host_or_a_place_on_somebodys_machine() -> None:
    place = re.compile(r"(?<![\w.])/(?:root|work|home|Users)/")
    index = re.compile(r"(?<!emit)-(?:index-url|find-links|trusted-host)\b|://[^/\s]*(?:hosted|registry)\.[a-z]+/")
    for path, text in text_files():
        for pattern in (place, index):
            found = pattern.search(text)
            assert found is None, f"{path.relative_to(ROOT)} names {found.group() if found else ''}"


def test_the_image_is_built_from_what_is_there() -> None:
    """Each COPY of the Dockerfile names files of the repository that .dockerignore lets through."""
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    through = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    sources = " ".join(copied).split()
    assert "*" in rules
    assert "sidecar" in sources
    for source in sources:
        assert (ROOT / source).exists(), f"Dockerfile: COPY {source}: there is no such file"
        assert {source, source.split("/")[0]} & through, f".dockerignore keeps {source} from the Dockerfile's COPY"


def pins() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in (
        "constraints.txt",
        "constraints-build.txt",
        "constraints-extras.txt",
        "constraints-dev.txt",
        "constraints-bench.txt",
        "constraints-browser.txt",
        "constraints-clients.txt",
    ):
        text = (ROOT / "deploy" / name).read_text(encoding="utf-8")
        for block in re.split(r"\n(?=\S)", text):
            pinned = re.match(r"([A-Za-z0-9._-]+)==(\S+)", block)
            if pinned:
                assert "--hash=sha256:" in block, f"deploy/{name}: {pinned[1]} has no hash"
                assert pinned[1] not in found, f"deploy/{name}: {pinned[1]} is pinned twice"
                found[pinned[1]] = pinned[2]
            else:
                assert block.startswith("#"), f"deploy/{name}: not a pin: {block[:60]}"
    return found


def test_every_dependency_is_pinned_with_hashes_at_a_version_that_is_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    wanted += [text for extra in project["project"]["optional-dependencies"].values() for text in extra]
    pinned = {canonicalize_name(name): version for name, version in pins().items()}
    for text in wanted:
        requirement = Requirement(text)
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{text} is not pinned: run deploy/pins"
        assert requirement.specifier.contains(version), f"{text} is pinned at {version}: run deploy/pins"
