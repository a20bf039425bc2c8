#!/usr/bin/python
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: alert_silence
short_description: Silence the alerts of a host while it is upgraded
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Makes a silence in an Alertmanager, by its API v2, or ends those that were made for an upgrade of a host.
  - A silence carries the upgrade, the host and the component in its comment. It is found again by them, so it can be
    ended by a later run, also after a crash; if nobody does, it ends by itself after O(duration).
  - Everything happens on the controller; no host is contacted.
options:
  state:
    description:
      - V(present) sees that alerts are silenced. A silence that there is for the same upgrade, host and component is
        kept, and made longer if less than nine tenths of O(duration) is left of it.
      - V(absent) ends all silences of the upgrade of the host, whatever their component.
    type: str
    choices: [present, absent]
    default: present
  url:
    description:
      - Address of an Alertmanager, with its prefix if it has one, such as V(https://alerts.example/alertmanager).
      - For a cluster, the addresses of its peers. A silence is made at the first that answers, and ended at
        all that do.
    type: list
    elements: str
    required: true
  upgrade_id:
    description: Name of the upgrade.
    type: str
    required: true
  host:
    description: The host that the silence is for. Defaults to the one that the task runs for.
    type: str
  component:
    description: The component that is upgraded.
    type: str
    default: ""
  instances:
    description:
      - Names that the host's alerts have in their label C(instance), with any port or none. Defaults to O(host).
      - Alerts without that label, such as those of a whole job, aren't silenced.
    type: list
    elements: str
  matchers:
    description: Which alerts to silence, instead of those of O(instances). An alert must match all of them.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of a label.
        type: str
        required: true
      value:
        description: Its value.
        type: str
        required: true
      isRegex:
        description: Whether O(matchers[].value) is a regular expression. It must match the whole value.
        type: bool
        default: false
  duration:
    description: For how many seconds alerts are silenced, at most.
    type: int
    default: 900
  required:
    description:
      - Whether it is a failure if no Alertmanager does it. Otherwise it is a warning, and alerts will be sent.
    type: bool
    default: false
  timeout:
    description: Seconds for all requests to one Alertmanager, to the last byte of its last answer.
    type: int
    default: 10
  url_username:
    description: Who asks. A login in O(url) or in C(~/.netrc) does as well.
    type: str
  url_password:
    description: The password of O(url_username).
    type: str
  token:
    description: A bearer token, instead of O(url_username). It is sent to the hosts in O(url) only.
    type: str
  ca_path:
    description: Certificates of the authorities to trust, on the controller.
    type: path
  validate_certs:
    description: Whether the certificate of an Alertmanager must be good.
    type: bool
    default: true
  client_cert:
    description: A certificate to show to the Alertmanager, on the controller.
    type: path
  client_key:
    description: Its key, if it isn't in the same file.
    type: path
extends_documentation_fragment:
  - observability.stack._attributes.controller
  - observability.stack._attributes
seealso:
  - module: observability.stack.service_restart
"""

EXAMPLES = r"""
- name: Silence the alerts of this host for ten minutes
  observability.stack.alert_silence:
    url: https://alerts.example/alertmanager
    token: "{{ vault_alertmanager_token }}"
    upgrade_id: run-1a2b3c94d01c
    component: prometheus
    instances: ["{{ inventory_hostname }}", "{{ ansible_host }}"]
    duration: 600

- name: Let them be sent again
  observability.stack.alert_silence:
    state: absent
    url: https://alerts.example/alertmanager
    token: "{{ vault_alertmanager_token }}"
    upgrade_id: run-1a2b3c94d01c
"""

RETURN = r"""
url:
  description: The Alertmanager that did it; none if none did.
  returned: always
  type: str
silences:
  description:
    - The silence that there is now, or those that were ended.
    - In check mode those that would be; one that would be made has no C(id).
  returned: always
  type: list
  elements: dict
  contains:
    id:
      description: Its name in the Alertmanager.
      type: str
    ends_at:
      description: When it ends, or would have ended.
      type: str
    comment:
      description: Its comment, with upgrade, host and component.
      type: str
"""

# All of it is done by the action plugin of the same name.
