# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. Where releases are listed, and what such a list says.

A source is a text of one of three forms:

- C(github:<owner>/<repository>): the newest 100 releases
  (https://docs.github.com/en/rest/releases/releases#list-releases);
- C(gitlab:<project>): the same (https://docs.gitlab.com/api/releases/);
- a URL whose last path segment has C({version}) in it: a directory that a web server lists, as Apache, nginx, Caddy and
  C(python -m http.server) do. It tells no dates. C({arch}) in the segment stands for any architecture.
"""

from __future__ import annotations

import html.parser
import json
import re
import reprlib
import typing as t
import urllib.parse

from ..module_utils._argv import redact_url as shown
from ..module_utils._errors import InputError, ReleaseError
from ..module_utils._redaction import redact_value
from . import _versions

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    Release = dict[str, t.Any]
    """C(version) without a v before it, C(date) (a text like 2026-05-01, or none), and C(prerelease)."""

APIS = {"github": "https://api.github.com", "gitlab": "https://gitlab.com/api/v4"}
WANTED = "github:<owner>/<repository>, gitlab:<project>, or a URL whose last path segment has {version} in it"

_GITHUB = re.compile(r"github:[A-Za-z0-9][\w-]*/[\w.-]+", re.ASCII)
_GITLAB = re.compile(r"gitlab:\w[\w.-]*(?:/\w[\w.-]*)+", re.ASCII)
_DIRECTORY = re.compile(
    r"(?P<url>https?://[^/\s?#{}]+/(?:[^\s?#{}]*/)?)"
    r"(?P<segment>(?:[^/\s?#{}]|\{arch\})*\{version\}(?:[^/\s?#{}]|\{version\}|\{arch\})*)/?"
)
_GITHUB_URL = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+)/releases/download/.+")
_GITLAB_URL = re.compile(r"https://gitlab\.com/([\w.-]+(?:/[\w.-]+)+)/-/releases/.+")

# Of x-1.0.0-rc.1-linux-amd64 for x-{version}-{arch}, nothing but the usual words tells where the version ends.
_BEFORE_ARCH = r"\d+(?:\.\d+)+(?:-?(?:rc|alpha|beta|pre|dev|test|snapshot|nightly|a|b|\d)[\w.]*)?(?:\+[\w.-]+)?"
_LONGEST_NAME = 255


class Listing(t.NamedTuple):
    """How a source is asked. ``read`` takes the answer; it gives the releases in it, or raises ReleaseError."""

    url: str
    headers: dict[str, str]
    read: t.Callable[[bytes], list[Release]]
    missing: str
    """What it means if there is no such page."""


def path_of(url: str) -> str:
    """The path of a URL, whatever that may be."""
    return re.sub(r"^\w+://[^/?#]*|[?#].*", "", url)


def places(url: str, mirror: str | t.Sequence[str] | None) -> list[str]:
    """Where a file is looked for, in this order: at the mirrors that stand in for its host, each of which has the same
    path below its base, or at its own URL if there are none."""
    mirrors = [mirror] if isinstance(mirror, str) else list(mirror or [])
    path = urllib.parse.urlsplit(url).path
    return list(dict.fromkeys(base.rstrip("/") + path for base in mirrors if base)) or [url]


def is_source(value: object) -> bool:
    """Whether a text says where releases are listed."""
    return isinstance(value, str) and any(form.fullmatch(value) for form in (_GITHUB, _GITLAB, _DIRECTORY))


def source_of(entry: Mapping[str, t.Any], mirror: str | t.Sequence[str] | None = None) -> str:
    """Where releases of a component are listed: as the catalog says, or as follows from where its archives are.

    :param entry: the component, as the catalog has it.
    :param mirror: what stands in for the release hosts. Then its own directory is listed; of several mirrors, that of
        the first.
    :raises InputError: if that can't be told, or there are no releases.
    """
    if entry.get("versions_from") and not (mirror and entry["releases"]):
        return str(entry["versions_from"])
    if not entry["releases"]:
        raise InputError(f"{entry['name']} has no releases to list: {entry['unreleased']}", key="input.release_source")
    url = str(entry["releases"][0]["url"])
    for name, form in (("github", _GITHUB_URL), ("gitlab", _GITLAB_URL)):
        found = form.fullmatch(url)
        if found and not mirror:
            return f"{name}:{found[1]}"
    base = mirror if isinstance(mirror, str) else next(iter(mirror or []), None)
    path = re.sub(r"(\{version\}[^/]*).*", r"\1", path_of(url))
    source = (base.rstrip("/") if base else url[: url.index("/", len("https://"))]) + path
    if not is_source(source):
        raise InputError(
            f"{entry['name']}: releases can't be listed at {shown(source)}; "
            f"set versions_from to {WANTED}, or use upgrade_release_index",
            key="input.release_source",
        )
    return source


def listing(source: str, apis: Mapping[str, str] | None = None) -> Listing:
    """How a source is asked.

    :param apis: base URLs of C(github) and C(gitlab), if they aren't those of github.com and gitlab.com.
    :raises InputError: if it is none.
    """
    name, _colon, project = source.partition(":")
    bases = {**APIS, **checked_apis(apis)}
    if _GITHUB.fullmatch(source):
        return _of_api(f"{bases[name]}/repos/{project}/releases?per_page=100", project, _GITHUB_FIELDS)
    if _GITLAB.fullmatch(source):
        path = urllib.parse.quote(project, safe="")
        return _of_api(f"{bases[name]}/projects/{path}/releases?per_page=100", project, _GITLAB_FIELDS)
    found = _DIRECTORY.fullmatch(source)
    if found is None:
        raise InputError(
            f"{reprlib.repr(redact_value(source))} is not a source of releases; it must be {WANTED}",
            key="input.release_source",
        )
    return _of_directory(found["url"], found["segment"])


def checked_apis(apis: Mapping[str, str] | None) -> dict[str, str]:
    """Base URLs without a slash at their end.

    :raises InputError: for one that is none, or that is of something else.
    """
    checked = {}
    for name, base in (apis or {}).items():
        if name not in APIS or not isinstance(base, str) or not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", base):
            raise InputError(
                f"upgrade_release_apis: {name} is {reprlib.repr(redact_value(base))}; "
                "it must be {github: URL, gitlab: URL}, such as {github: 'https://github.example.com/api/v3'}",
                key="input.release_source",
            )
        checked[name] = base.rstrip("/")
    return checked


def release(version: str, date: str | None = None, *, prerelease: bool = False) -> Release:
    """One release. It is a pre-release if its version says so, too."""
    return {"version": version, "date": date, "prerelease": prerelease or _versions.is_prerelease(version)}


def in_order(releases: t.Iterable[Release]) -> list[Release]:
    """Each version once, newest first."""
    once: dict[_versions.Version, Release] = {}
    for one in releases:
        once.setdefault(_versions.parse(one["version"]), one)
    return [once[place] for place in sorted(once, reverse=True)]


# -- what lists say -----------------------------------------------------------------------------------------------


class _Fields(t.NamedTuple):
    """How an API calls what is asked for: the day (the first that is given), and why a release doesn't count yet."""

    headers: dict[str, str]
    dates: tuple[str, ...]
    skip: tuple[str, ...]


_GITHUB_FIELDS = _Fields(
    {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"},
    ("published_at", "created_at"),
    ("draft",),
)
_GITLAB_FIELDS = _Fields({"Accept": "application/json"}, ("released_at", "created_at"), ("upcoming_release",))


def _of_api(url: str, project: str, fields: _Fields) -> Listing:
    def read(body: bytes) -> list[Release]:
        found = in_order(_releases_of_api(body, url, fields))
        if not found:
            raise ReleaseError(f"{shown(url)} lists no release of {project}", key="release.none_listed")
        return found

    return Listing(url, fields.headers, read, f"there is no project {project}, or it needs a token")


def _releases_of_api(body: bytes, url: str, fields: _Fields) -> t.Iterator[Release]:
    try:
        items = json.loads(body)
        for item in items:
            version = _version_of_tag(item["tag_name"])
            if version and not any(item.get(name) for name in fields.skip):
                date = next((item[name] for name in fields.dates if item.get(name)), None)
                yield release(version, _day(date), prerelease=bool(item.get("prerelease")))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ReleaseError(
            f"{shown(url)} answered something else than a list of releases: "
            "is it the address of the API, and nothing in between that answers instead of it?",
            key="release.malformed",
        ) from None


def _version_of_tag(tag: str) -> str | None:
    """C(v1.2.3) and C(1.2.3) are versions; C(helm-loki-6.0) and C(pkg/x/v1.2.3) are tags of something else."""
    text = re.sub(r"^[vV](?=\d)", "", tag)
    return text if _versions.is_version(text) and text == text.strip() else None


def _day(moment: object) -> str | None:
    """The day of a time like 2026-05-01T10:00:00Z."""
    found = re.match(r"\d{4}-\d{2}-\d{2}(?=T|$)", moment) if isinstance(moment, str) else None
    return found[0] if found else None


def _of_directory(url: str, segment: str) -> Listing:
    name = _name_pattern(segment)

    def read(body: bytes) -> list[Release]:
        links = _Links()
        links.feed(body.decode("utf-8", "replace"))
        names = filter(None, (name.fullmatch(link) for link in links.names))
        versions = (match["version"] for match in names if _versions.is_version(match["version"]))
        found = in_order(release(version) for version in versions)
        if not found:
            raise ReleaseError(
                f"{shown(url)} lists nothing that is called like {segment}: does this web server list its directories?",
                key="release.none_listed",
            )
        return found

    return Listing(url, {"Accept": "text/html"}, read, "there is no such directory, or it needs a token")


def _name_pattern(segment: str) -> re.Pattern[str]:
    """What a name in a directory must be like; the version is in a group. The segment may have it twice."""
    version = _BEFORE_ARCH if "{arch}" in segment else r"\d\S*"
    pattern = re.escape(urllib.parse.unquote(segment))
    pattern = pattern.replace(re.escape("{version}"), f"(?P<version>{version})", 1)
    pattern = pattern.replace(re.escape("{version}"), r"(?P=version)").replace(re.escape("{arch}"), r"[\w.-]+")
    return re.compile(pattern, re.ASCII)


class _Links(html.parser.HTMLParser):
    """The last parts of the paths that a page links to."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if tag == "a" and name == "href" and value:
                self._add(value)

    def _add(self, href: str) -> None:
        path = re.split(r"[?#]", href, maxsplit=1)[0].rstrip("/")
        last = urllib.parse.unquote(path.rpartition("/")[2])
        if len(last) <= _LONGEST_NAME:
            self.names.append(last)
