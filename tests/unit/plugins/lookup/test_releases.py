# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import pathlib
import typing as t

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.observability.stack.plugins.lookup import release_sizes, releases
from ansible_collections.observability.stack.plugins.plugin_utils import _bundle, _release_settings, _releases, _run
from ansible_collections.observability.stack.tests.unit.sites import Site, by_etag, json_reply

Data = dict[str, t.Any]
LOKI = "/repos/grafana/loki/releases?per_page=100"
TAGS = [{"tag_name": "v3.7.6", "published_at": "2026-05-01T09:30:00Z"}]
FOUND = [{"version": "3.7.6", "date": "2026-05-01", "prerelease": False}]
HIDDEN = "ghp_private"


def template(text: str, **variables: t.Any) -> t.Any:
    """What an expression gives in a task."""
    return Templar(loader=DataLoader(), variables=variables).template(trust_as_template(f"{{{{ {text} }}}}"))


def lookup(arguments: str, **variables: t.Any) -> Data:
    return t.cast("Data", template(f"lookup('observability.stack.releases', {arguments})", **variables))


@pytest.fixture
def site(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("GITHUB_TOKEN", "GITLAB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with Site().serving() as server:
        server.replies[LOKI] = by_etag(json_reply(TAGS), '"one"')
        yield server


def test_it_tells_which_releases_there_are(site: Site, tmp_path: pathlib.Path) -> None:
    found = lookup("'github:grafana/loki', apis=apis", apis={"github": site.url})
    assert found["github:grafana/loki"].pop("as_of").endswith("Z")
    assert found == {"github:grafana/loki": {"source": "github:grafana/loki", "releases": FOUND, "note": None}}
    assert (tmp_path / "observability-upgrades" / "releases").is_dir()


def test_it_asks_once_for_all_tasks_of_a_run(site: Site) -> None:
    first = lookup("'github:grafana/loki', apis=apis, ttl=0", apis={"github": site.url})
    assert lookup("['github:grafana/loki'], apis=apis, ttl=0", apis={"github": site.url}) == first
    assert len(site.asked) == 1


def test_it_asks_again_in_another_run(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    lookup("'github:grafana/loki', apis=apis, ttl=0", apis={"github": site.url})
    later = {**_run.this_run(), "upgrade_id": "another"}
    monkeypatch.setattr(_run, "this_run", lambda: later)
    lookup("'github:grafana/loki', apis=apis", apis={"github": site.url})
    assert len(site.asked) == 1
    lookup("'github:grafana/loki', apis=apis, ttl=0", apis={"github": site.url})
    assert [request.headers.get("if-none-match") for request in site.asked] == [None, '"one"']


def test_it_takes_many_sources(site: Site) -> None:
    site.replies["/pub/"] = (200, {}, b'<a href="x-1.2.3-amd64.tgz">')
    mirror = f"{site.url}/pub/x-{{version}}-{{arch}}.tgz"
    found = lookup("*sources, apis=apis", sources=["github:grafana/loki", mirror], apis={"github": site.url})
    assert {source: answer["releases"][0]["version"] for source, answer in found.items()} == {
        "github:grafana/loki": "3.7.6",
        mirror: "1.2.3",
    }
    assert template("lookup('observability.stack.releases', [])") == {}


def test_a_source_that_lists_nothing_fails_or_is_told(site: Site) -> None:
    apis = {"github": site.url}
    with pytest.raises(AnsibleError) as failure:
        lookup("'github:a/b', apis=apis", apis=apis)
    text = f"{site.url}/repos/a/b/releases answered 404: there is no project a/b, or it needs a token"
    assert text in str(failure.value)
    found = lookup("'github:a/b', 'github:grafana/loki', apis=apis, problems='tell'", apis=apis)
    assert found["github:a/b"] == {
        "source": "github:a/b",
        "releases": [],
        "as_of": None,
        "note": None,
        "error": text,
    }
    assert found["github:grafana/loki"]["releases"] == FOUND


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("'prometheus'", "'prometheus' is not a source of releases; it must be github:<owner>/<repository>"),
        ("'github:a/b', problems='hide'", "problems"),
        ("'github:a/b', ttl='soon'", "ttl"),
        ("'github:a/b', apis={'github': 'x'}", "upgrade_release_apis: github is 'x'; it must be"),
        ("'github:a/b', index='/none/x.yml'", "upgrade_release_index: /none/x.yml: No such file or directory"),
        ("'github:a/b', cache_dir='/dev/null/x'", "set upgrade_cache_dir to a directory that you can write to"),
    ],
)
def test_what_cannot_be_meant_is_refused(site: Site, arguments: str, says: str) -> None:
    with pytest.raises(AnsibleError) as failure:
        lookup(arguments)
    assert says in str(failure.value)
    assert site.asked == []


def test_an_index_is_used_instead_of_the_network(site: Site, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "index.json"
    path.write_text(json.dumps(lookup("'github:grafana/loki', apis=apis", apis={"github": site.url})))
    site.asked.clear()
    assert lookup("'github:grafana/loki', index=path", path=str(path))["github:grafana/loki"]["releases"] == FOUND
    with pytest.raises(AnsibleError, match="says nothing of github:a/b; add it there"):
        lookup("'github:a/b', index=path", path=str(path))
    assert site.asked == []


class Asked(t.NamedTuple):
    """What the lookup asks with."""

    tokens: Data
    cache_dir: str


@pytest.fixture
def asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    seen: list[Asked] = []

    def answers(sources: t.Any, *, tokens: Data, cache_dir: str, **how: t.Any) -> Data:
        seen.append(Asked(tokens, cache_dir))
        return {}

    monkeypatch.setattr(_releases, "answers", answers)
    return seen


@pytest.mark.parametrize(
    ("tokens", "sent"),
    [
        ({}, {"api.github.com": "from-hub", "gitlab.com": "from-lab"}),
        ({"mirror.example": "m"}, {"api.github.com": "from-hub", "gitlab.com": "from-lab", "mirror.example": "m"}),
        ({"api.github.com": "own"}, {"api.github.com": "own", "gitlab.com": "from-lab"}),
        ({"api.github.com": ""}, {"api.github.com": "", "gitlab.com": "from-lab"}),
    ],
)
def test_tokens_of_the_environment_are_for_their_hosts(
    asked: list[Asked], monkeypatch: pytest.MonkeyPatch, tokens: Data, sent: Data
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "from-hub")
    monkeypatch.setenv("GITLAB_TOKEN", "from-lab")
    lookup("'github:a/b', tokens=tokens", tokens=tokens)
    assert asked == [Asked(sent, _release_settings.default_cache_dir())]


def test_without_tokens_none_is_sent(asked: list[Asked]) -> None:
    lookup("'github:a/b', cache_dir='/x'")
    assert asked == [Asked({}, "/x")]


def test_a_token_is_sent_to_its_host_only(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", HIDDEN)
    lookup("'github:grafana/loki', apis=apis", apis={"github": site.url})
    tokens = {site.host: trust_as_template("{{ 'to' ~ 'ken' }}")}
    lookup("'github:grafana/loki', apis=apis, tokens=tokens", apis={"github": f"{site.url}/"}, tokens=tokens)
    site.replies["/x/"] = (200, {}, b'<a href="v1.0.0">')
    lookup("source, tokens=tokens", source=f"{site.url}/x/v{{version}}", tokens=tokens)
    assert [request.headers.get("authorization") for request in site.asked] == [None, "Bearer token"]


def test_sizes(site: Site, tmp_path: pathlib.Path) -> None:
    site.replies["/x/a.tgz"] = (200, {"Content-Length": "7"}, b"")
    urls = ["https://dl.example/x/a.tgz", "https://dl.example/x/b.tgz"]
    text = "lookup('observability.stack.release_sizes', *urls, mirror=mirror, cache_dir=cache, timeout=5)"
    expected = {urls[0]: {"bytes": 7, "status": 200}, urls[1]: {"bytes": None, "status": 404}}
    for mirror in (site.url, [f"{site.url}/none", site.url]):
        assert template(text, urls=urls, mirror=mirror, cache=str(tmp_path / "cache")) == expected
    assert (tmp_path / "cache" / "releases" / "sizes.json").is_file()
    assert template("lookup('observability.stack.release_sizes', [])") == {}


@pytest.mark.parametrize("plugin", [releases, release_sizes])
def test_what_is_documented_is_what_is_returned(plugin: t.Any, site: Site) -> None:
    sample = yaml.safe_load(plugin.RETURN)["_raw"]["sample"][0]
    (item,) = sample.values()
    if plugin is release_sizes:
        assert set(item) == {"bytes", "status"}
        return
    found = lookup("'github:grafana/loki', apis=apis", apis={"github": site.url})["github:grafana/loki"]
    assert found.keys() == item.keys()
    assert found["releases"][0].keys() == item["releases"][0].keys()
    index = pathlib.Path(_release_settings.default_cache_dir(), "index.yml")
    index.write_text(yaml.safe_dump(sample))
    assert _releases.from_index(str(index)) == sample


def test_examples_are_valid() -> None:
    for task in yaml.safe_load(releases.EXAMPLES):
        source = task.get("vars", {}).get("source", "github:grafana/loki")
        assert _releases.source_of({"versions_from": source}) == source
        assert _releases._sources.is_source(source)


def bundle(tmp_path: pathlib.Path) -> str:
    """A bundle with one release in it, and what was listed when it was made."""
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(b"an archive")
    digest = hashlib.sha256(b"an archive").hexdigest()
    release = _bundle.Release("loki", "3.7.6", "amd64", "https://example.org/x.tar.gz", digest, 10, [])
    listed = {"github:grafana/loki": FOUND}
    path = str(tmp_path / "b.tar")
    _bundle.write(path, [(release, str(archive))], made_at="2026-11-21T10:00:00Z", plan="d", index=listed)
    return path


def test_a_bundle_tells_releases_and_sizes_and_nobody_is_asked(site: Site, tmp_path: pathlib.Path) -> None:
    path = bundle(tmp_path)
    found = lookup("'github:grafana/loki', index=path, apis=apis", path=path, apis={"github": site.url})
    assert found["github:grafana/loki"]["releases"] == FOUND
    urls = ["https://example.org/x.tar.gz", f"{site.url}/y.tar.gz"]
    sizes = template("lookup('observability.stack.release_sizes', *urls, bundle=path)", urls=urls, path=path)
    assert sizes[urls[0]] == {"bytes": 10, "status": 200}
    assert sizes[urls[1]]["missing"] == f"b.tar doesn't have {urls[1]}"
    assert site.asked == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("'releases', 'github:prometheus/prometheus', index=path", "make a bundle for what is wished for now"),
        ("'release_sizes', 'https://example.org/x', bundle=path ~ 'x'", "b.tarx: No such file"),
    ],
)
def test_what_a_bundle_does_not_tell_is_an_error(tmp_path: pathlib.Path, arguments: str, says: str) -> None:
    with pytest.raises(AnsibleError) as failure:
        template(f"lookup('observability.stack.' ~ {arguments})", path=bundle(tmp_path))
    assert says in str(failure.value)
