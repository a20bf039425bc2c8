# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _packages
from ansible_collections.observability.stack.plugins.module_utils._command import Completed, run


def test_the_real_dpkg_knows_its_own_files() -> None:
    """Runs where dpkg is, as on every Debian that this is tested on."""
    assert shutil.which("dpkg-query")
    found = _packages.owners(run, ["/usr/bin/dpkg", "/bin/cat", "/usr/local/bin/nobody"])
    assert found == {
        "/usr/bin/dpkg": {"manager": "apt", "name": "dpkg"},
        "/bin/cat": {"manager": "apt", "name": "coreutils"},
    }


def test_no_paths_ask_nobody() -> None:
    assert _packages.owners(lambda *_a, **_k: pytest.fail("nothing to ask"), []) == {}


def test_a_link_to_a_packages_file_belongs_to_the_package(tmp_path: pathlib.Path) -> None:
    link = tmp_path / "prometheus"
    os.symlink("/usr/bin/dpkg", link)
    assert _packages.owners(run, [str(link)]) == {str(link): {"manager": "apt", "name": "dpkg"}}


def test_rpm_is_asked_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_packages.shutil, "which", lambda name: name if name == "rpm" else None)

    def rpm(argv: t.Sequence[str], **_options: t.Any) -> Completed:
        owned = argv[-1] == "/usr/bin/prometheus"
        return Completed(0, "prometheus3", "") if owned else Completed(1, "file x is not owned by any package\n", "")

    assert _packages.owners(rpm, ["/usr/bin/prometheus", "/usr/local/bin/x"]) == {
        "/usr/bin/prometheus": {"manager": "dnf", "name": "prometheus3"}
    }


def test_lines_of_dpkg_that_name_no_owner_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_packages.shutil, "which", lambda name: name if name == "dpkg-query" else None)
    out = "diversion by x from: /bin/other\ndiversion by x to: /bin/other.distrib\na:amd64, b: /bin/sh\nc: /bin/other\n"
    assert _packages.owners(lambda *_a, **_k: Completed(1, out, ""), ["/bin/sh"])["/bin/sh"]["name"] == "a"


# As dpkg 1.21 prints it: /bin/sh was diverted by dash, /usr/bin/node_exporter by the operator.
DIVERTED = {
    "/bin/sh": "diversion by dash from: /bin/sh\ndiversion by dash to: /bin/sh.distrib\ndash: /bin/sh\n",
    "/usr/bin/node_exporter": (
        "local diversion from: /usr/bin/node_exporter\nlocal diversion to: /usr/bin/node_exporter.distrib\n"
        "prometheus-node-exporter: /usr/bin/node_exporter\n"
    ),
    "/usr/bin/node_exporter.distrib": (
        "local diversion from: /usr/bin/node_exporter\nlocal diversion to: /usr/bin/node_exporter.distrib\n"
    ),
}


@pytest.mark.parametrize(
    ("path", "owner", "diversion"),
    [
        ("/bin/sh", "dash", "dpkg-divert moves the file of the package to /bin/sh.distrib, for dash"),
        ("/usr/bin/node_exporter", None, "dpkg-divert moves the file of the package to /usr/bin/node_exporter.distrib"),
        ("/usr/bin/node_exporter.distrib", "prometheus-node-exporter", None),
    ],
)
def test_a_diverted_path_is_not_of_the_package_whose_file_has_its_name(
    monkeypatch: pytest.MonkeyPatch, path: str, owner: str | None, diversion: str | None
) -> None:
    monkeypatch.setattr(_packages.shutil, "which", lambda name: name if name == "dpkg-query" else None)
    monkeypatch.setattr(_packages.os.path, "realpath", lambda name: name)

    def dpkg(argv: t.Sequence[str], **_options: t.Any) -> Completed:
        return Completed(0, "".join(DIVERTED.get(name, "") for name in argv[2:]), "")

    found = _packages.owners(dpkg, [path])
    assert found.get(path, {}).get("name") == owner
    assert _packages.diversions(dpkg, [path]).get(path) == diversion


@pytest.mark.parametrize(
    ("asked", "shipped"),
    [
        ("/usr/bin/node_exporter", "/bin/node_exporter"),
        ("/bin/node_exporter", "/usr/bin/node_exporter"),
        ("/usr/sbin/node_exporter", "/sbin/node_exporter"),
        ("/usr/bin/node_exporter", "/usr/sbin/node_exporter"),
        ("/usr/local/bin/node_exporter", None),
    ],
)
def test_a_file_has_all_the_names_that_a_merged_usr_gives_it(
    monkeypatch: pytest.MonkeyPatch, asked: str, shipped: str | None
) -> None:
    """A package can ship /bin/x, and its unit start /usr/bin/x."""
    links = {"/bin": "/usr/bin", "/sbin": "/usr/bin", "/usr/sbin": "/usr/bin", "/lib": "/usr/lib"}
    monkeypatch.setattr(_packages.shutil, "which", lambda name: name if name == "dpkg-query" else None)
    monkeypatch.setattr(_packages.os.path, "realpath", lambda path: links.get(path, path))

    def dpkg(argv: t.Sequence[str], **_options: t.Any) -> Completed:
        owned = [path for path in argv if path == shipped]
        return Completed(0, "".join(f"site-exporter: {path}\n" for path in owned), "")

    owner = {asked: {"manager": "apt", "name": "site-exporter"}} if shipped else {}
    assert _packages.owners(dpkg, [asked]) == owner
