# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lookup: how large archives are."""

from __future__ import annotations

DOCUMENTATION = r"""
name: release_sizes
short_description: How large the archives of releases are
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Asks the servers how large archives are, without fetching them. What they say is kept for a day.
  - Where a server doesn't tell, or can't be reached, the size isn't known. It fails only for a bundle that can't be
    read, and for a cache that another user owns or can write to.
options:
  _terms:
    description: URLs of archives.
    type: list
    elements: str
    required: true
  mirror:
    description:
      - Base URL that stands in for the release hosts, same paths below it. It can be a list of them; the first that
        tells the size counts.
    type: raw
  cache_dir:
    description: Directory on the controller where sizes are kept. By default the user's own cache directory.
    type: path
  bundle:
    description: A bundle on the controller. It tells the sizes, and nobody is asked.
    type: path
  timeout:
    description: Seconds for each exchange with a server. A server that did not answer is not asked again.
    type: float
    default: 10
seealso:
  - plugin: observability.stack.releases
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Tell how much there is to fetch
  ansible.builtin.debug:
    msg: "{{ lookup('observability.stack.release_sizes', *urls).values() | map(attribute='bytes') | select | sum }}"
  vars:
    urls:
      - https://github.com/prometheus/prometheus/releases/download/v3.5.3/prometheus-3.5.3.linux-amd64.tar.gz
"""

RETURN = r"""
_raw:
  description:
    - One dictionary by URL. C(bytes) is none where the size isn't known. C(status) is that of the answer, and none if
      there was none. C(missing) is there only for what isn't in the bundle, and says so.
  type: list
  elements: dict
  sample:
    - https://github.com/prometheus/prometheus/releases/download/v3.5.3/prometheus-3.5.3.linux-amd64.tar.gz:
        bytes: 119235411
        status: 200
"""

import typing as t

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from ..module_utils._errors import UpgradeError
from ..plugin_utils import _bundle, _release_settings, _releases


class LookupModule(LookupBase):
    """The sizes of archives."""

    def run(self, terms: list[t.Any], variables: t.Any = None, **kwargs: t.Any) -> list[dict[str, t.Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        cache_dir = self.get_option("cache_dir") or _release_settings.default_cache_dir()
        mirror, timeout = self.get_option("mirror"), self.get_option("timeout")
        urls = list(map(str, self._flatten(terms)))
        try:
            if self.get_option("bundle"):
                return [_bundle.sizes(self.get_option("bundle"), urls)]
            return [_releases.sizes(urls, cache_dir=cache_dir, mirror=mirror, timeout=timeout)]
        except UpgradeError as exc:
            raise AnsibleError(str(exc)) from None  # else what it was caused by is told again
