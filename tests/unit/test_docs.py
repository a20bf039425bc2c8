# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the archive of the collection has: the files that tools look for, and no link that leads nowhere."""

from __future__ import annotations

import fnmatch
import pathlib
import re
import typing as t

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
IGNORED = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["build_ignore"]
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def is_shipped(path: pathlib.Path) -> bool:
    """Whether the archive has a file or directory of the checkout."""
    relative = path.relative_to(ROOT)
    parts = [str(pathlib.Path(*relative.parts[: number + 1])) for number in range(len(relative.parts))]
    return path.exists() and not any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in IGNORED)


def pages() -> t.Iterator[pathlib.Path]:
    for pattern in ("*.md", "docs/**/*.md", "roles/*/README.md"):
        yield from (path for path in sorted(ROOT.glob(pattern)) if is_shipped(path))


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_of_a_page_leads_to_what_is_shipped(page: pathlib.Path) -> None:
    links = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    targets = [(link, (page.parent / link.partition("#")[0]).resolve()) for link in links if not link.startswith("#")]
    assert [link for link, target in targets if not target.is_relative_to(ROOT) or not is_shipped(target)] == []


def test_the_archive_tells_ansible_test_which_python_the_modules_take() -> None:
    config = ROOT / "tests" / "config.yml"
    assert is_shipped(config)
    assert yaml.safe_load(config.read_text(encoding="utf-8"))["modules"]["python_requires"] == ">=3.9"
    assert not is_shipped(ROOT / "tests" / "unit")
