# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rings of docs/architecture.md: who may import whom; and how long things may get."""

from __future__ import annotations

import ast
import pathlib
import sys
import typing as t

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PLUGINS = ROOT / "plugins"
DIRECTORIES = {path.name for path in PLUGINS.iterdir()}
OWN = "ansible_collections.observability.stack.plugins."

STANDARD = sys.stdlib_module_names
# What of it can't touch anything outside of the process, nor ask for the time.
HARMLESS = {
    "__future__",
    "base64",
    "bisect",
    "collections",
    "copy",
    "functools",
    "itertools",
    "json",
    "math",
    "re",
    "shlex",
    "typing",
}

RINGS = {"Pure ring.": "pure", "Io ring.": "io", "Glue.": "glue"}
INWARD = {"pure": {"pure"}, "io": {"pure", "io"}, "glue": {"pure", "io", "glue"}}

# What opens, makes, renames, gives away or removes files by their paths.
BY_PATH = {
    "os": {
        *("open", "rename", "replace", "renames", "link", "symlink", "unlink", "remove", "rmdir", "removedirs"),
        *("mkdir", "makedirs", "mkfifo", "mknod", "chmod", "lchmod", "chown", "lchown", "truncate", "utime"),
        *("setxattr", "removexattr", "walk", "fwalk", "scandir"),
    },
    "shutil": {"copy", "copy2", "copyfile", "copytree", "copymode", "copystat", "move", "rmtree", "chown"},
    "io": {"open", "FileIO"},
    "pathlib": {"Path"},
}
HOST_FILES = "_files"
"""The one module that may, for it follows nothing that a user other than root controls."""

READERS = {
    "_private": "by the descriptor of a directory that _files has walked to",
    "_process": "/proc only",
    "_processes": "/proc only",
    "_netns": "/proc only",
    "_sockets": "/proc only",
    "_observe_host": "/proc only",
    "_archive": "archives and what is taken out of them, in directories of our own",
    "_archive_stream": "archives, in directories of our own",
    "_archive_tar": "archives, in directories of our own",
    "_archive_zip": "archives, in directories of our own",
    "_transfer": "downloads: the controller's cache, and staging/ of the state directory",
}

LONGEST_FUNCTION = 60
LONGEST_PLAYBOOK = 40
FLOOR = (3, 9)
"""The oldest Python of a host."""


def sources(*directories: str) -> list[t.Any]:
    """Python files, without what ansible-test leaves."""
    found = (path for directory in directories for path in sorted((ROOT / directory).rglob("*.py")))
    own_files = (path for path in found if not path.is_relative_to(ROOT / "tests" / "output"))
    return [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in own_files]


def tree(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: pathlib.Path) -> set[str]:
    """Everything that a file imports, wherever in it; modules of the collection as ``module_utils._x``."""
    package, found = path.relative_to(PLUGINS).parts[:-1], set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join(filter(None, [*above, node.module]))
            found |= {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
    return {_module(name.removeprefix(OWN)) for name in found}


def _module(name: str) -> str:
    first, *rest = name.split(".")
    return ".".join([first, *rest[:1]]) if first in DIRECTORIES else name


def own(names: set[str], directory: str) -> set[str]:
    return {name for name in names if name.split(".")[0] == directory}


def foreign(names: set[str]) -> set[str]:
    """Neither the collection's own nor Python's."""
    return {name for name in names if name.split(".")[0] not in STANDARD | DIRECTORIES}


def ring(path: pathlib.Path) -> str:
    first = (ast.get_docstring(tree(path)) or "").lstrip()
    return next((name for words, name in RINGS.items() if first.startswith(words)), "none")


@pytest.mark.parametrize("path", sources("plugins/module_utils"))
def test_a_module_util_says_its_ring_and_imports_inward(path: pathlib.Path) -> None:
    here, names = ring(path), imports(path)
    assert here in INWARD, f"its docstring begins with none of {', '.join(RINGS)}"
    neighbours = {name: ring(PLUGINS / f"{name.replace('.', '/')}.py") for name in own(names, "module_utils")}
    assert {name: its for name, its in neighbours.items() if its not in INWARD[here]} == {}
    assert own(names, "plugin_utils") == set()


@pytest.mark.parametrize("path", sources("plugins/module_utils", "plugins/modules"))
def test_what_runs_on_hosts_needs_python_and_ansible_only(path: pathlib.Path) -> None:
    allowed = ring(path) == "glue" or path.parent.name == "modules"
    assert {
        name for name in foreign(imports(path)) if not (allowed and name.startswith("ansible.module_utils"))
    } == set()
    assert own(imports(path), "plugin_utils") == set()


@pytest.mark.parametrize(
    "path", [param for param in sources("plugins/module_utils") if ring(param.values[0]) == "pure"]
)
def test_the_pure_ring_does_no_io(path: pathlib.Path) -> None:
    names = imports(path)
    assert {name for name in names if name.split(".")[0] not in HARMLESS | {"module_utils"}} == set()


def calls_by_path(path: pathlib.Path) -> set[str]:
    """The calls in a file that lead to what a path says at that moment."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            found.add("open")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found |= {f"{node.value.id}.{node.attr}"} if node.attr in BY_PATH.get(node.value.id, ()) else set()
        elif isinstance(node, ast.ImportFrom) and node.module in BY_PATH:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & {
                f"{node.module}.{name}" for name in BY_PATH[node.module]
            }
    return found


@pytest.mark.parametrize("path", sources("plugins/module_utils", "plugins/modules"))
def test_only_one_module_touches_files_of_a_host_by_their_paths(path: pathlib.Path) -> None:
    assert path.stem in {HOST_FILES, *READERS} or calls_by_path(path) == set()


def test_calls_by_path_are_found(tmp_path: pathlib.Path) -> None:
    """Guards the test above against looking at nothing."""
    path = tmp_path / "code.py"
    path.write_text(
        "from shutil import rmtree\nimport os\nopen('x')\nos.chown('x', 0, 0)\nf = os.rename\nos.stat('x')\n"
    )
    assert calls_by_path(path) == {"shutil.rmtree", "open", "os.chown", "os.rename"}
    assert {"os.open", "os.rename"} <= calls_by_path(PLUGINS / "module_utils" / f"{HOST_FILES}.py")


@pytest.mark.parametrize("path", sources("plugins"))
def test_nothing_imports_modules(path: pathlib.Path) -> None:
    assert own(imports(path), "modules") == set()


@pytest.mark.parametrize("path", sources("plugins/plugin_utils"))
def test_a_plugin_util_builds_on_utils_only(path: pathlib.Path) -> None:
    names = imports(path)
    assert {name.split(".")[0] for name in foreign(names)} <= {"ansible", "packaging", "yaml"}
    assert {name.split(".")[0] for name in names} & DIRECTORIES <= {"module_utils", "plugin_utils"}


@pytest.mark.parametrize("path", sources("plugins/module_utils", "plugins/modules"))
def test_what_runs_on_hosts_is_python_of_the_floor(path: pathlib.Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=FLOOR)


@pytest.mark.parametrize("path", sources("plugins", "tests"))
def test_functions_are_short(path: pathlib.Path) -> None:
    functions = (node for node in ast.walk(tree(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    lengths = {function.name: (function.end_lineno or 0) - function.lineno + 1 for function in functions}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION} == {}


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.name) for path in sorted((ROOT / "playbooks").glob("*.yml"))]
)
def test_playbooks_are_short(path: pathlib.Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_PLAYBOOK


def test_the_rings_are_all_there() -> None:
    """Guards the tests above against looking at nothing."""
    rings = {ring(param.values[0]) for param in sources("plugins/module_utils")}
    assert rings == {"pure", "io", "glue"}
    assert "module_utils._errors" in imports(PLUGINS / "filter" / "upgrade.py")
    assert "plugin_utils._planner" in imports(PLUGINS / "filter" / "upgrade.py")
