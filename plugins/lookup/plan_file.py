# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lookup: the text of a plan that was saved."""

from __future__ import annotations

DOCUMENTATION = r"""
name: plan_file
short_description: The text of a plan that was saved, if nobody else can have changed it
version_added: 0.1.0
author:
  - Contributors to the observability.stack collection (@observability-stack)
description:
  - Reads a file that the playbook C(plan) has saved, for the filter P(observability.stack.saved_plan#filter).
  - A file that another user owns or can write to, or that is below a directory of another user, is refused, unless its
    signature or its digest is verified.
options:
  _terms:
    description:
      - Path of the file on the controller, from the working directory of C(ansible-playbook).
      - Or the plan itself, as a dictionary or as JSON text. It can't be signed.
    type: list
    elements: raw
    required: true
  signers:
    description:
      - Who must have signed the file, with C(ssh-keygen -Y sign -n observability-plan). Nobody has to, if it is empty.
      - With C(allowed_signers), a file on the controller, and C(threshold), how many of them must have signed (1).
    type: dict
    default: {}
  approved:
    description:
      - The digest that the operator has approved. It is compared by P(observability.stack.saved_plan#filter), which
        must be given the same.
    type: str
    default: ""
  foreign:
    description: Whether another user may have written the file, because the plan is only shown.
    type: bool
    default: false
seealso:
  - plugin: observability.stack.saved_plan
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Read a plan that two of the site's operators have signed
  ansible.builtin.debug:
    msg: "{{ lookup('observability.stack.plan_file', 'plan.json', signers=signers) | ansible.builtin.from_json }}"
  vars:
    signers: {allowed_signers: /etc/observability/plan_signers, threshold: 2}
"""

RETURN = r"""
_raw:
  description: The text of each file.
  type: list
  elements: str
"""

import typing as t

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from ..module_utils._errors import UpgradeError
from ..plugin_utils import _plan_file


class LookupModule(LookupBase):
    """The text of plans."""

    def run(self, terms: list[t.Any], variables: t.Any = None, **kwargs: t.Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        try:
            how = {name: self.get_option(name) for name in ("signers", "approved", "foreign")}
            return [_plan_file.text(term, **how) for term in self._flatten(terms)]
        except UpgradeError as exc:
            raise AnsibleError(str(exc)) from None
