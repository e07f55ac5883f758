"""``sidecar fmt``: files are laid out alike; nothing that they say, and no comment, is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.cli.main import main
from sidecar.config.text.document import parse, plain
from sidecar.config.text.layout import formatted
from tests.core.making import steady

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "config").rglob("*.yaml"))
GOOD = sorted((ROOT / "tests" / "config" / "good").rglob("*.yaml"))
BAD = sorted((ROOT / "tests" / "config" / "bad").rglob("*.yaml"))

UGLY = """\
# head


listen:   127.0.0.1:8080  \r
limits:
      head: 64KiB     # comment
      # of drain
      drain: 25s

      # behind drain
# of upstreams
upstreams:
-   name: a
    # of origin
    origin: https://x.example
    routes:
    - {methods: [POST],
       path: /v1/**,   # inside
       policy: default}
    # behind the route
-   {name: b, origin: https://y.example}
# end


"""
LAID_OUT = """\
# head

listen:   127.0.0.1:8080
limits:
  head: 64KiB     # comment
  # of drain
  drain: 25s

  # behind drain
# of upstreams
upstreams:
  - name: a
    # of origin
    origin: https://x.example
    routes:
      - {methods: [POST],
         path: /v1/**,   # inside
         policy: default}
      # behind the route
  - {name: b, origin: https://y.example}
# end
"""


def laid_out(text: str) -> str:
    document = parse("x.yaml", text.encode())
    assert not document.problems
    return formatted(document)


def fmt(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["fmt", *map(str, words)])


def test_lines_are_indented_alike_and_every_comment_stays_at_its_place() -> None:
    assert laid_out(UGLY) == LAID_OUT
    assert laid_out(LAID_OUT) == LAID_OUT


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
@pytest.mark.parametrize("step", [1, 3, 4, 8])
def test_a_file_that_is_indented_otherwise_comes_back(path: Path, step: int) -> None:
    """The shipped files are laid out; what stands further in than they do comes back to them."""
    text = path.read_text(encoding="utf-8")
    assert laid_out(text) == text
    lines = [
        " " * ((len(line) - len(line.lstrip())) // 2 * step) + line.lstrip() if line.strip() else line
        for line in text.splitlines()
    ]
    other = "\n".join(lines) + "\n"
    if step > 1 and not parse("x", other.encode()).problems:
        assert plain(parse("x", laid_out(other).encode()).root) == plain(parse("x", text.encode()).root)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        "a: |\n      text\n        further in\n   \n      end\nb: 1\n",
        "a: >-\n  folded\n\n\n  text   \nb: 2\n",
        'a: "two\n   lines"\nb: plain\n  goes on\n',
        "a: &x\n   b: 1\nc: *x\n",
        "- - nested\n  - lists\n",
        "-\n  a: 1\n",
        "? complex\n: value\n",
        "a:\n- b\n-    c: 1\n     d: 2\n",
        "a: [1,\n# inside\n2]\n",
        "{a: 1}\n",
        "a:\n    - b: |\n         x\n          y\n      c: 1\n",
        "\ufeffa: 1\n",
        "a: 1 # x\n\n\n\n# y\n\n\nb: 2",
    ],
)
def test_what_it_says_is_never_changed(text: str) -> None:
    before = parse("x", text.encode())
    after = laid_out(text)
    assert plain(parse("x", after.encode()).root) == plain(before.root)
    assert laid_out(after) == after
    assert "\n\n\n" not in after or "|" in text or ">" in text


values: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(["a", "b c", "x: y", "# no", "1", 2, True, None, "l1\nl2\n", " lead", "'q'", '"', "- d"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["k", "long key", "z", "a-b"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(steady, max_examples=150)
@given(values, st.integers(2, 9), st.booleans(), st.integers(20, 200))
def test_any_values_in_any_layout_stay_what_they_are(value: Any, indent: int, flow: bool, width: int) -> None:
    text = yaml.safe_dump({"top": value}, indent=indent, default_flow_style=None if flow else False, width=width)
    before = parse("x", text.encode())
    after = laid_out(text)
    assert plain(parse("x", after.encode()).root) == plain(before.root)
    assert laid_out(after) == after


@pytest.mark.parametrize("path", [*GOOD, *BAD], ids=lambda path: path.name)
def test_files_of_every_kind(path: Path) -> None:
    document = parse(path.name, path.read_bytes())
    if document.problems:
        assert fmt(path).exit_code == 78
        return
    after = parse("x", formatted(document).encode())
    assert plain(after.root) == plain(document.root)


def test_files_are_written_whole_and_only_if_they_change(tmp_path: Path) -> None:
    folder = tmp_path / "policies" / "tests"
    folder.mkdir(parents=True)
    site = tmp_path / "sidecar.yaml"
    real = tmp_path / "real.yaml"
    real.write_text(UGLY, newline="")
    real.chmod(0o640)
    site.symlink_to(real)
    (folder / "t.yaml").write_text("policy: x\ncases: []\n")
    checked = fmt("--check", site)
    assert checked.exit_code == 1
    assert "+  head: 64KiB     # comment" in checked.output
    assert real.read_bytes() == UGLY.encode()
    result = CliRunner().invoke(main, ["fmt"], env={"SIDECAR_CONFIG": str(site)})
    assert (result.exit_code, result.output) == (0, f"{site}: laid out\n")
    assert (real.read_text(), site.is_symlink(), real.stat().st_mode & 0o777) == (LAID_OUT, True, 0o640)
    again = CliRunner().invoke(main, ["fmt"], env={"SIDECAR_CONFIG": str(site)})
    assert (again.exit_code, again.output) == (0, "2 files: nothing to do\n")
    assert fmt("--check", site).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policies", "real.yaml", "sidecar.yaml"]


def test_one_wrong_file_and_none_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text("a:    1\nb:\n      c: 1\n")
    (tmp_path / "b.yaml").write_text("a: [1\n")
    result = fmt(tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "missing.yaml")
    assert result.exit_code == 78
    assert "missing.yaml: error E001" in result.output
    assert "      c: 1" in (tmp_path / "a.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIDECAR_CONFIG", raising=False)
    assert fmt().exit_code == 2


def test_a_file_of_nothing_but_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("just text\n")
    assert fmt(path).output == "1 file: nothing to do\n"
