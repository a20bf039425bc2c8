# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lookup: all that is known about components."""

from __future__ import annotations

DOCUMENTATION = r"""
name: catalog
short_description: All that is known about the components that can be upgraded
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Returns the collection's catalog of components, with what the operator changes in it and adds to it, checked, and
    with all defaults filled in.
  - The fields of a component are told in C(docs/catalog.md) of the collection.
  - It reads only files of the collection. Nothing is fetched, and no host is asked.
options:
  _terms:
    description: Components to return. All of them if none is named.
    type: list
    elements: str
  overrides:
    description:
      - What is other on these hosts than the catalog says, by component and field.
      - A value takes the place of the catalog's. Of a field that is a dictionary, only the keys that are named are
        replaced.
      - The collection's playbooks take it from C(upgrade_overrides).
    type: dict
    default: {}
  components:
    description:
      - Whole components of your own, by name, with the fields of C(docs/catalog.md).
      - One that is called like a component of the catalog takes its place.
      - The collection's playbooks take it from C(upgrade_components).
    type: dict
    default: {}
seealso:
  - module: observability.stack.component_version
"""

EXAMPLES = r"""
- name: Tell where Prometheus 2.55.1 comes from
  ansible.builtin.debug:
    msg: "{{ lookup('observability.stack.catalog').prometheus.releases[0].url }}"

- name: Read a host on which Prometheus has another unit, and no stage is wanted on the way to 3
  observability.stack.component_version:
    components: "{{ lookup('observability.stack.catalog', overrides=upgrade_overrides) }}"
  become: true
  vars:
    upgrade_overrides:
      prometheus:
        units: [prom]
        stages: []

- name: Add a component of your own
  ansible.builtin.debug:
    msg: "{{ lookup('observability.stack.catalog', 'shop_exporter', components=upgrade_components) }}"
  vars:
    upgrade_components:
      shop_exporter:
        phase: exporters
        units: [shop_exporter]
        files:
          - name: shop_exporter
        releases:
          - url: https://releases.example.com/shop_exporter/{version}/shop_exporter_linux_{arch}.tar.gz
            checksums: https://releases.example.com/shop_exporter/{version}/sha256sums.txt
            members:
              shop_exporter: shop_exporter
        port: 9999
"""

RETURN = r"""
_raw:
  description: One dictionary, the components by name.
  type: list
  elements: dict
  sample:
    - node_exporter:
        name: node_exporter
        phase: exporters
        units: [node_exporter, prometheus-node-exporter, node-exporter]
        port: 9100
"""

import typing as t

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from ..module_utils._errors import InputError
from ..plugin_utils import _catalog


class LookupModule(LookupBase):
    """The catalog."""

    def run(self, terms: list[t.Any], variables: t.Any = None, **kwargs: t.Any) -> list[dict[str, t.Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        try:
            catalog = _catalog.load(overrides=self.get_option("overrides"), components=self.get_option("components"))
            return [_catalog.only(catalog, terms) if terms else catalog]
        except InputError as exc:
            raise AnsibleError(str(exc)) from exc
