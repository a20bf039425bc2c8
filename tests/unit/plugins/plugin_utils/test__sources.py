# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import re
import typing as t

import pytest
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError, ReleaseError
from ansible_collections.observability.stack.plugins.plugin_utils import _catalog, _sources
from hypothesis import given
from hypothesis import strategies as st

MIRROR = "https://mirror.example/pub"

SOURCES = [
    # component, without a mirror, with one
    (
        "prometheus",
        "github:prometheus/prometheus",
        f"{MIRROR}/prometheus/prometheus/releases/download/v{{version}}",
    ),
    ("loki", "github:grafana/loki", f"{MIRROR}/grafana/loki/releases/download/v{{version}}"),
    ("promtail", "github:grafana/loki", f"{MIRROR}/grafana/loki/releases/download/v{{version}}"),
    ("process_exporter", "github:ncabatoff/process-exporter", None),
    ("apache_exporter", "github:Lusitaniae/apache_exporter", None),
    (
        "fail2ban_exporter",
        "gitlab:hectorjsmith/fail2ban-prometheus-exporter",
        f"{MIRROR}/hectorjsmith/fail2ban-prometheus-exporter/-/releases/v{{version}}",
    ),
    ("grafana", "github:grafana/grafana", f"{MIRROR}/oss/release/grafana-{{version}}.linux-{{arch}}.tar.gz"),
]


@pytest.mark.parametrize(("name", "source", "mirrored"), SOURCES)
def test_where_releases_of_a_component_are_listed(name: str, source: str, mirrored: str | None) -> None:
    entry = _catalog.load()[name]
    assert _sources.source_of(entry) == source
    if mirrored:
        assert _sources.source_of(entry, MIRROR) == mirrored
        assert _sources.source_of(entry, f"{MIRROR}/") == mirrored
        assert _sources.source_of(entry, [f"{MIRROR}/", "https://second.example"]) == mirrored


@pytest.mark.parametrize("name", sorted(_catalog.load()))
def test_every_component_has_a_source(name: str) -> None:
    entry = _catalog.load()[name]
    assert _sources.source_of(entry).startswith(("github:", "gitlab:"))
    assert _sources.is_source(_sources.source_of(entry, MIRROR))


def entry_at(url: str, versions_from: str | None = None) -> dict[str, t.Any]:
    return {"name": "mine", "versions_from": versions_from, "releases": [{"url": url}]}


@pytest.mark.parametrize(
    ("url", "source"),
    [
        (
            "https://dl.example/x/{version}/x-{version}-{arch}.tgz",
            "https://dl.example/x/{version}",
        ),
        ("https://dl.example:8443/x-{version}.tgz", "https://dl.example:8443/x-{version}.tgz"),
        ("https://gitlab.com/a/b/c/-/releases/{version}/downloads/x.tgz", "gitlab:a/b/c"),
        ("https://github.com/a/b/archive/v{version}.tar.gz", "https://github.com/a/b/archive/v{version}.tar.gz"),
    ],
)
def test_other_places_are_directories(url: str, source: str) -> None:
    assert _sources.source_of(entry_at(url)) == source


def test_what_the_catalog_says_counts_more_than_the_url_but_not_more_than_a_mirror() -> None:
    entry = entry_at("https://dl.example/x-{version}.tgz", "github:a/b")
    assert _sources.source_of(entry) == "github:a/b"
    assert _sources.source_of(entry, MIRROR) == f"{MIRROR}/x-{{version}}.tgz"


def test_a_directory_that_depends_on_the_architecture_cannot_be_listed() -> None:
    with pytest.raises(InputError) as failure:
        _sources.source_of(entry_at("https://dl.example/{arch}/x-{version}.tgz"))
    assert str(failure.value).startswith(
        "mine: releases can't be listed at https://dl.example/{arch}/x-{version}.tgz; set versions_from to github:"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "prometheus/prometheus",
        "github:prometheus",
        "github:a/b/c",
        "github:../b",
        "github:a/b?x",
        "gitlab:a",
        "gitlab:a/../b",
        "https://x.example/v1/",
        "https://{version}.example/x",
        "https://x.example/{version}/x-{version}.tgz",
        "https://x.example/a?v={version}",
        "https://x.example/{arch}/v{version}",
        "https://x.example/v{version}-{os}",
        "ftp://x.example/v{version}",
        "file:///tmp/v{version}",
        "https://x.example/a b/v{version}",
        None,
        7,
    ],
)
def test_what_is_no_source(text: t.Any) -> None:
    assert not _sources.is_source(text)
    with pytest.raises(InputError) as failure:
        _sources.listing(str(text))
    assert "is not a source of releases; it must be github:<owner>/<repository>" in str(failure.value)


@given(st.text(max_size=80))
def test_any_text_is_a_source_or_refused(text: str) -> None:
    if _sources.is_source(text):
        assert _sources.listing(text).url
    else:
        with pytest.raises(InputError) as failure:
            _sources.listing(text)
        assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("source", "apis", "url"),
    [
        (
            "github:a/b.c",
            {},
            "https://api.github.com/repos/a/b.c/releases?per_page=100",
        ),
        ("gitlab:a/b/c", None, "https://gitlab.com/api/v4/projects/a%2Fb%2Fc/releases?per_page=100"),
        (
            "github:a/b",
            {"github": "https://ghe.example/api/v3/"},
            "https://ghe.example/api/v3/repos/a/b/releases?per_page=100",
        ),
        ("https://x.example/a/b/v{version}/", {}, "https://x.example/a/b/"),
        ("https://x.example/v{version}", {}, "https://x.example/"),
    ],
)
def test_how_a_source_is_asked(source: str, apis: t.Any, url: str) -> None:
    assert _sources.listing(source, apis).url == url


def test_github_is_told_which_version_of_its_api_is_meant() -> None:
    headers = _sources.listing("github:a/b").headers
    assert headers == {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}


@pytest.mark.parametrize(
    "apis", [{"githab": "https://x.example"}, {"github": "x.example"}, {"github": None}, {"gitlab": "https:///x"}]
)
def test_a_base_url_of_something_else_is_refused(apis: t.Any) -> None:
    with pytest.raises(InputError, match=r"^upgrade_release_apis: git"):
        _sources.listing("github:a/b", apis)


# -- APIs -----------------------------------------------------------------------------------------------------------


def github(tag: str, **changes: t.Any) -> dict[str, t.Any]:
    plain = {"draft": False, "prerelease": False, "published_at": "2026-05-01T09:30:00Z", "assets": [{}], "body": "x"}
    return {"tag_name": tag, "created_at": "2020-01-01T00:00:00Z", **plain, **changes}


def versions(releases: list[dict[str, t.Any]]) -> list[str]:
    return [release["version"] for release in releases]


def read(source: str, data: t.Any) -> list[dict[str, t.Any]]:
    return _sources.listing(source).read(json.dumps(data).encode())


def test_releases_of_github() -> None:
    data = [github("v3.5.3"), github("v3.6.0-rc.0"), github("v3.6.0", prerelease=True), github("v3.10.0", draft=True)]
    assert read("github:a/b", data) == [
        {"version": "3.6.0", "date": "2026-05-01", "prerelease": True},
        {"version": "3.6.0-rc.0", "date": "2026-05-01", "prerelease": True},
        {"version": "3.5.3", "date": "2026-05-01", "prerelease": False},
    ]


def test_releases_of_gitlab() -> None:
    data = [
        {"tag_name": "v0.10.3", "released_at": "2025-11-02T10:00:00.000Z", "upcoming_release": False},
        {"tag_name": "0.7.2", "released_at": "2022-01-02T10:00:00.000+02:00"},
        {"tag_name": "v0.11.0", "released_at": "2030-01-01T10:00:00.000Z", "upcoming_release": True},
    ]
    assert read("gitlab:a/b", data) == [
        {"version": "0.10.3", "date": "2025-11-02", "prerelease": False},
        {"version": "0.7.2", "date": "2022-01-02", "prerelease": False},
    ]


def test_tags_that_are_no_versions_and_duplicates_are_left_out() -> None:
    tags = [
        *("helm-loki-6.0.0", "pkg/push/v1.2.0", "operator/v0.7.0", "latest", "nightly-2026-01-01", "release-3.0", "v3"),
        *("v3.5.3", "3.5.3", "v3.5.3.0", "V3.5.2", "vv3.5.1", " v3.5.0", "v3.4.0\n", "2.9.10", "2.9.9"),
        *("v12.2.0+security-01", "v12.2.0", "v", "", "3.0.0-rc.10", "3.0.0-rc.9"),
    ]
    found = versions(read("github:a/b", [github(tag) for tag in tags]))
    newest = ["12.2.0+security-01", "12.2.0", "3.5.3", "3.5.2", "3.0.0-rc.10", "3.0.0-rc.9", "2.9.10", "2.9.9"]
    assert found == newest


@pytest.mark.parametrize(
    ("published", "day"),
    [("2026-05-01T09:30:00Z", "2026-05-01"), (None, "2020-01-01"), ("yesterday", None), (1777629000, None)],
)
def test_the_day_of_a_release(published: t.Any, day: str | None) -> None:
    assert read("github:a/b", [github("v1.2.3", published_at=published)])[0]["date"] == day


@pytest.mark.parametrize(
    "body",
    [
        b"<html>a login page</html>",
        b"",
        b"\xff\xfe",
        b'{"message": "Not Found"}',
        b'["v1.0.0"]',
        b'[{"name": "v1.0.0"}]',
        b'[{"tag_name": null}]',
        b'[{"tag_name": 7}]',
        b"null",
        b"7",
        b"[" * 100_000,
    ],
)
def test_an_answer_that_is_no_list_of_releases(body: bytes) -> None:
    with pytest.raises(ReleaseError) as failure:
        _sources.listing("github:a/b").read(body)
    assert failure.value.key == "release.malformed"
    assert str(failure.value).startswith(
        "https://api.github.com/repos/a/b/releases answered something else than a list"
    )
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("data", [[], [github("v1.0.0", draft=True)], [github("helm-1.0.0")]])
def test_a_project_without_releases(data: t.Any) -> None:
    with pytest.raises(ReleaseError) as failure:
        read("github:a/b", data)
    assert str(failure.value) == "https://api.github.com/repos/a/b/releases lists no release of a/b"
    assert failure.value.key == "release.none_listed"


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["tag_name", "draft", "x"]), inner),
    )
)
def test_any_json_is_read_or_refused(data: t.Any) -> None:
    try:
        found = read("github:a/b", data)
    except ReleaseError:
        return
    assert found


# -- directories ----------------------------------------------------------------------------------------------------

PYTHON = """<!DOCTYPE HTML>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Directory listing for /download/</title>
</head>
<body>
<h1>Directory listing for /download/</h1>
<hr>
<ul>
<li><a href=".hidden/">.hidden/</a></li>
<li><a href="latest/">latest@</a></li>
<li><a href="v2.55.1/">v2.55.1/</a></li>
<li><a href="v3.10.0/">v3.10.0/</a></li>
<li><a href="v3.5.3/">v3.5.3/</a></li>
<li><a href="v3.6.0-rc.0/">v3.6.0-rc.0/</a></li>
<li><a href="v12.2.0%2Bsecurity-01/">v12.2.0+security-01/</a></li>
</ul>
<hr>
</body>
</html>
"""

NGINX = """<html>
<head><title>Index of /download/</title></head>
<body>
<h1>Index of /download/</h1><hr><pre><a href="../">../</a>
<a href="v12.2.0+security-01/">v12.2.0+security-01/</a>                 21-Nov-2026 10:00                   -
<a href="v2.55.1/">v2.55.1/</a>                                           21-Nov-2026 10:00                   -
<a href="v3.10.0/">v3.10.0/</a>                                           21-Nov-2026 10:00                   -
<a href="v3.5.3/">v3.5.3/</a>                                           21-Nov-2026 10:00                   -
<a href="v3.6.0-rc.0/">v3.6.0-rc.0/</a>                                   21-Nov-2026 10:00                   -
<a href="sha256sums.txt">sha256sums.txt</a>                                     21-Nov-2026 10:00                 812
</pre><hr></body>
</html>
"""

APACHE = """<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN">
<html>
 <head>
  <title>Index of /download</title>
 </head>
 <body>
<h1>Index of /download</h1>
  <table>
   <tr><th valign="top"><img src="/icons/blank.gif" alt="[ICO]"></th><th><a href="?C=N;O=D">Name</a></th><th>\
<a href="?C=M;O=A">Last modified</a></th><th><a href="?C=S;O=A">Size</a></th></tr>
   <tr><th colspan="5"><hr></th></tr>
<tr><td valign="top"><img src="/icons/back.gif" alt="[PARENTDIR]"></td><td><a href="/">Parent Directory</a></td></tr>
<tr><td valign="top"><img src="/icons/folder.gif" alt="[DIR]"></td><td><a href="v2.55.1/">v2.55.1/</a></td></tr>
<tr><td valign="top"><img src="/icons/folder.gif" alt="[DIR]"></td><td><a href="v3.10.0/">v3.10.0/</a></td></tr>
<tr><td valign="top"><img src="/icons/folder.gif" alt="[DIR]"></td><td><a href="v3.5.3/">v3.5.3/</a></td></tr>
<tr><td valign="top"><img src="/icons/folder.gif" alt="[DIR]"></td><td><a href="v3.6.0-rc.0/">v3.6.0-rc.0/</a></td></tr>
<tr><td valign="top"><img src="/icons/folder.gif" alt="[DIR]"></td><td>\
<a href="v12.2.0+security-01/">v12.2.0+securi..&gt;</a></td></tr>
   <tr><th colspan="5"><hr></th></tr>
</table>
<address>Apache/2.4.62 (Debian) Server at mirror.example Port 443</address>
</body></html>
"""

CADDY = """<!DOCTYPE html>
<html>
<body>
<h1><a href="/">/</a><a href="../download/">download</a></h1>
<table><thead><tr><th><a href="?sort=name&amp;order=desc">Name</a></th><th><a href="?sort=size&order=asc">Size</a></th>
</tr></thead><tbody>
<tr class="file"><td></td><td><a href="./v2.55.1/"><svg><use xlink:href="#folder"></use></svg>
<span class="name">v2.55.1</span></a></td><td>&mdash;</td></tr>
<tr class="file"><td><a href="./v3.10.0/"><span class="name">v3.10.0</span></a></td></tr>
<tr class="file"><td><a href="./v3.5.3/"><span class="name">v3.5.3</span></a></td></tr>
<tr class="file"><td><a href="./v3.6.0-rc.0/"><span class="name">v3.6.0-rc.0</span></a></td></tr>
<tr><td><a href="./v12.2.0&#43;security-01/"><span class="name">v12.2.0&#43;security-01</span></a></td></tr>
</tbody></table>
<footer>Served with <a rel="noopener noreferrer" href="https://caddyserver.com">Caddy</a></footer>
</body>
</html>
"""

ABSOLUTE = """<A HREF='/pub/download/v3.5.3'>x</A> <a href="https://mirror.example/pub/download/v2.55.1/?x=1#y">x</a>
<a href=v3.10.0>x<a name="v9.9.9"><a href>x</a><link href="v8.8.8/"><a href="v3.6.0-rc.0"> <a href="">
<a href="/pub/download/v12.2.0%2bsecurity-01/">
"""


@pytest.mark.parametrize(
    "page", [PYTHON, NGINX, APACHE, CADDY, ABSOLUTE], ids=["python", "nginx", "apache", "caddy", ""]
)
def test_directories_as_web_servers_list_them(page: str) -> None:
    found = _sources.listing("https://mirror.example/download/v{version}").read(page.encode())
    assert versions(found) == ["12.2.0+security-01", "3.10.0", "3.6.0-rc.0", "3.5.3", "2.55.1"]
    assert {release["date"] for release in found} == {None}
    assert [release["version"] for release in found if release["prerelease"]] == ["3.6.0-rc.0"]


NAMES = [
    # segment, names in the directory, versions
    (
        "grafana-{version}.linux-{arch}.tar.gz",
        [
            "grafana-11.6.0.linux-amd64.tar.gz",
            "grafana-11.6.0.linux-amd64.tar.gz.sha256",
            "grafana-11.6.0.linux-arm64.tar.gz",
            "grafana-12.0.0+security-01.linux-amd64.tar.gz",
            "grafana-12.1.0-71127pre.linux-amd64.tar.gz",
            "grafana-enterprise-12.9.0.linux-amd64.tar.gz",
            "grafana_12.8.0_amd64.deb",
        ],
        ["12.1.0-71127pre", "12.0.0+security-01", "11.6.0"],
    ),
    ("x-{version}-{arch}.tgz", ["x-1.0.0-rc.1-amd64.tgz", "x-0.9.0-linux-amd64.tgz"], ["1.0.0-rc.1", "0.9.0"]),
    ("x_{version}_{arch}", ["x_1.2.3_amd64", "x_1.2.3-beta2_arm64", "x_1.2_s390x"], ["1.2.3", "1.2.3-beta2", "1.2"]),
    ("{version}", ["1.2.3", "2.50", "v1.2.4", "current", "1"], ["2.50", "1.2.3"]),
    ("v{version}", ["v1.2.3", "1.2.4", "vv1.2.5", "v1.2.6.sha256", "v1.2.7 copy", "xv1.2.8"], ["1.2.3"]),
    ("{version}-{version}.zip", ["1.2.3-1.2.3.zip", "1.2.4-1.2.5.zip"], ["1.2.3"]),
    ("a.b-{version}.zip", ["a.b-1.2.3.zip", "aXb-1.2.4.zip"], ["1.2.3"]),
    ("a%2Bb-{version}.zip", ["a+b-1.2.3.zip"], ["1.2.3"]),
    ("v{version}", ["v1.2.3", "v" + "9" * 300 + ".1", "v1." + "9" * 10], ["1.2.3"]),
]


@pytest.mark.parametrize(("segment", "names", "found"), NAMES)
def test_names_in_a_directory(segment: str, names: list[str], found: list[str]) -> None:
    page = "".join(f'<a href="{name}">{name}</a>' for name in names)
    assert versions(_sources.listing(f"https://x.example/{segment}").read(page.encode())) == found


@pytest.mark.parametrize("page", ["", "<html>It works!</html>", '<a href="w1.2.3/">', "\0\xff", "<a href='"])
def test_a_directory_without_releases(page: str) -> None:
    with pytest.raises(ReleaseError) as failure:
        _sources.listing("https://me:secret@x.example/a/v{version}").read(page.encode("latin-1"))
    assert str(failure.value) == (
        "https://********@x.example/a/ lists nothing that is called like v{version}: "
        "does this web server list its directories?"
    )


@given(st.binary(max_size=200))
def test_any_page_is_read_or_refused(page: bytes) -> None:
    with pytest.raises(ReleaseError):
        _sources.listing("https://x.example/v-never-{version}").read(page)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("versions_from", "prometheus", "loki.versions_from is 'prometheus'; it must be github:<owner>/<repository>"),
        ("version_variables", ["a-b"], "loki.version_variables[0] is 'a-b'; it must be the name of a variable"),
        ("version_variables", "a", "loki.version_variables is 'a'; it must be a list"),
    ],
)
def test_the_catalog_checks_its_fields(field: str, value: t.Any, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        _catalog.load(overrides={"loki": {field: value}})


def test_the_catalog_takes_sources() -> None:
    own = {"versions_from": "https://mirror.example/loki/v{version}/", "version_variables": ["loki_version", "_x1"]}
    entry = _catalog.load(overrides={"loki": own})["loki"]
    assert {name: entry[name] for name in own} == own
    assert _sources.source_of(entry) == own["versions_from"]
    assert _catalog.load()["statsd_exporter"]["version_variables"] == []


@pytest.mark.parametrize(
    ("mirror", "found"),
    [
        (None, ["https://example.com/a/b?c"]),
        ("", ["https://example.com/a/b?c"]),
        ([], ["https://example.com/a/b?c"]),
        (["", None], ["https://example.com/a/b?c"]),
        ("http://m/", ["http://m/a/b"]),
        (["http://m", "http://n/x", "http://m/"], ["http://m/a/b", "http://n/x/a/b"]),
    ],
)
def test_mirrors_come_in_their_order_each_once(mirror: t.Any, found: list[str]) -> None:
    assert _sources.places("https://example.com/a/b?c", mirror) == found
