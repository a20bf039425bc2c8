#!/usr/bin/env bash
# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Upgrades a real fleet, on this machine: three Debian hosts with old versions, for real; then the same again, with nothing to
# do; then a release that dies at start, which is undone.

set -eu
cd "$(dirname "$0")/../.."
export ANSIBLE_CONFIG=tests/lab/ansible.cfg ANSIBLE_DISPLAY_SKIPPED_HOSTS=false

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
show() { printf '\033[1m$'; printf ' %q' "$@"; printf '\033[0m\n'; }
run() { show "$@"; "$@"; }

wanted='{"upgrade_versions": {"node_exporter": "1.9.0", "alertmanager": "0.28.1", "prometheus": "3.5.3"}}'
# The lab's stand-ins for bad releases are in the mirror, too.
released='{"upgrade_pins": {"node_exporter": "<1.98", "alertmanager": "<0.99", "prometheus": "<3.99"}}'
bad='{"upgrade_versions": {"node_exporter": "1.99.1"}}'

say "Three fresh hosts, and old versions on them"
run tests/lab/lab.py fresh --hosts 3
show ansible-playbook tests/lab/deploy.yml
ansible-playbook tests/lab/deploy.yml >.lab/deploy.log || { cat .lab/deploy.log; exit 1; }
tail -n 5 .lab/deploy.log

say "What there is"
run ansible-playbook playbooks/check.yml -e "$released"
say "What would be done"
run ansible-playbook playbooks/plan.yml -e "$wanted"
say "Do it"
run ansible-playbook playbooks/upgrade.yml -e "$wanted"
say "How the hosts are now"
run ansible-playbook playbooks/status.yml
say "Once more: there is nothing to do"
run ansible-playbook playbooks/upgrade.yml -e "$wanted"
say "A release that dies at start (a stand-in) on one host: it is undone, and the run fails"
if run ansible-playbook playbooks/upgrade.yml -l host1 -e "$bad"; then
    echo "The bad release was not noticed." >&2
    exit 1
fi
say "The old version is there, and healthy"
run ansible-playbook playbooks/verify.yml -l host1
say "Done. 'make demo-down' removes the hosts."
