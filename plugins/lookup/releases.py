# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lookup: which releases there are."""

from __future__ import annotations

DOCUMENTATION = r"""
name: releases
short_description: Which releases there are of components
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Asks GitHub, GitLab, or the directory that a web server lists, which releases there are.
  - Each source is asked once, however many hosts, forks and runs want to know it at a time. What it answers is kept in
    the cache, and asking again costs no rate limit on GitHub as long as nothing has changed.
  - A source that can't be asked now is taken as it was known before, with a C(note) that says so.
  - GitHub and GitLab are asked for the newest 100 releases.
options:
  _terms:
    description:
      - Where releases are listed. C(github:<owner>/<repository>), C(gitlab:<project>), or a URL whose last path segment
        has C({version}) in it, such as C(https://mirror.example/prometheus/prometheus/releases/download/v{version}).
        The directory above that segment is listed then.
    type: list
    elements: str
    required: true
  index:
    description:
      - A file on the controller that has the answers in store, as YAML or JSON. Then nobody is asked.
      - It is a dictionary by source, of lists of versions, or of dictionaries with C(version), C(date) and
        C(prerelease); or what this lookup has returned once. A bundle has one in it.
    type: path
  cache_dir:
    description: Directory on the controller where answers are kept. By default the user's own cache directory.
    type: path
  tokens:
    description:
      - Tokens by host, with the port if the URL has one. A host gets its own only.
      - Where none is given for C(api.github.com) and C(gitlab.com), the environment variables E(GITHUB_TOKEN) and
        E(GITLAB_TOKEN) are taken. An empty one means that none is sent.
    type: dict
    default: {}
  apis:
    description: Base URLs of the APIs of C(github) and C(gitlab), if they aren't those of github.com and gitlab.com.
    type: dict
    default: {}
  ttl:
    description:
      - For how many seconds an answer of another run is taken as it is. One of this run always is.
    type: int
    default: 900
  timeout:
    description: Seconds for the whole exchange with a source. A source that sends nothing for 10 s is left earlier.
    type: float
    default: 60
  problems:
    description:
      - What to do about a source that lists nothing and isn't known from before.
      - V(fail) fails, V(tell) returns an answer without releases whose C(error) says why.
    type: str
    choices: [fail, tell]
    default: fail
seealso:
  - plugin: observability.stack.catalog
    plugin_type: lookup
  - plugin: observability.stack.release_sizes
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Tell the newest release of Prometheus
  ansible.builtin.debug:
    msg: "{{ lookup('observability.stack.releases', source)[source].releases[0].version }}"
  vars:
    source: github:prometheus/prometheus

- name: Take what a mirror has
  ansible.builtin.debug:
    msg: "{{ lookup('observability.stack.releases', source)[source].releases | map(attribute='version') }}"
  vars:
    source: https://mirror.example/oss/release/grafana-{version}.linux-{arch}.tar.gz

- name: Use what was saved where there is internet
  ansible.builtin.debug:
    msg: "{{ lookup('observability.stack.releases', 'github:grafana/loki', index='releases.json') }}"
"""

RETURN = r"""
_raw:
  description:
    - One dictionary, an answer for each source. Its C(releases) are ordered by version, newest first. C(date) is none
      where the source tells none.
    - C(as_of) is the time in UTC at which the source was asked; C(note) says why that wasn't now, if so.
    - C(error) is there only where O(problems=tell) and there are no releases.
  type: list
  elements: dict
  sample:
    - github:prometheus/prometheus:
        source: github:prometheus/prometheus
        releases:
          - {version: 3.6.0-rc.0, date: "2026-05-04", prerelease: true}
          - {version: 3.5.3, date: "2026-05-01", prerelease: false}
        as_of: "2026-11-21T10:00:00Z"
        note: null
"""

import typing as t

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from ..module_utils._errors import UpgradeError
from ..plugin_utils import _release_settings, _releases

_PASSED_ON = ("apis", "ttl", "timeout", "index")


class LookupModule(LookupBase):
    """The releases that sources list."""

    def run(self, terms: list[t.Any], variables: t.Any = None, **kwargs: t.Any) -> list[dict[str, t.Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        try:
            found = _releases.of_this_run(
                map(str, self._flatten(terms)),
                tell=self.get_option("problems") == "tell",
                cache_dir=self.get_option("cache_dir") or _release_settings.default_cache_dir(),
                tokens=self.get_option("tokens"),
                **{name: self.get_option(name) for name in _PASSED_ON},
            )
        except UpgradeError as exc:
            raise AnsibleError(str(exc)) from exc
        return [found]
