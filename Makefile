# Checks and tests of the collection. `make` alone tells what there is; `make venv` is made by all others as they need it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

VENV := .venv
BIN := $(VENV)/bin
# In here the checkout is observability.stack, whatever its directory is called.
COLLECTIONS := $(CURDIR)/playbooks/collections
STACK := playbooks/collections/ansible_collections/observability/stack

export PATH := $(CURDIR)/$(BIN):$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(COLLECTIONS)

# ansible-test wants a place and Pythons of its own kind.
ANSIBLE_TEST = cd "$$(tests/tools/tree)" && env -u ANSIBLE_COLLECTIONS_PATH HOME="$(CURDIR)/.cache/home" \
    PATH="$(CURDIR)/.cache/pythons:$$PATH" ansible-test

export MOLECULE_GLOB := molecule/*/molecule.yml
export LC_ALL := C.UTF-8

# The directory of the lab: with another name, such as .lab-b, its hosts are others, and things can be tried beside each other.
LAB ?= .lab
export LAB

SCENARIOS := molecule-upgrade molecule-rollback molecule-resume molecule-order molecule-plan molecule-exporters molecule-gates molecule-hostile molecule-programs molecule-instances molecule-runs molecule-layouts
HOSTS := tests/lab/lab.py
PLAY := ANSIBLE_CONFIG=tests/lab/ansible.cfg ANSIBLE_INVENTORY=$(LAB)/inventory ansible-playbook

.PHONY: help venv lint lint-yaml lint-python lint-ansible lint-docs sanity units reliability reliability-brief newer \
    newer-units newer-upgrade with-newer-units with-newer-upgrade lab lab-down demo demo-down integration molecule \
    $(SCENARIOS) bench test

help: ## What there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.made ## The tools, in .venv

$(VENV)/.made: tests/requirements.txt tests/tools/python
	@tests/tools/python $(WHICH_PYTHON) >/dev/null 2>&1 || tests/lab/prepare.sh
	@echo "Installing the tools into $(VENV)"
	@"$$(tests/tools/python $(WHICH_PYTHON))" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

lint: lint-yaml lint-python lint-ansible lint-docs ## yamllint, ruff, mypy, ansible-lint, documentation

lint-yaml: venv
	yamllint --strict .

lint-python: venv
	ruff check .
	ruff format --check .
	MYPYPATH=$(COLLECTIONS) mypy --config-file .mypy.ini $(STACK)/plugins

lint-ansible: venv
	ansible-lint --offline

lint-docs: venv
	antsibull-changelog lint
	cd "$$(tests/tools/tree)" && antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=all .

sanity: venv ## ansible-test sanity, as Ansible Galaxy asks for it
	$(ANSIBLE_TEST) sanity --venv --color no

units: venv ## ansible-test units, also with the oldest Python of a host, if there is one
	python="$$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')"; $(ANSIBLE_TEST) units --venv --color no --python "$$python"
	if PATH="$(CURDIR)/.cache/pythons:$$PATH" python3.9 -c '' 2>/dev/null; then $(ANSIBLE_TEST) units --venv --color no --python 3.9; fi

reliability: venv ## Stop runs at every point, cut the power at each, write docs/reliability.md (needs root; see its --help)
	PYTHONPATH=$(COLLECTIONS) tests/reliability/reliability.py

# Killed at each point, in each scenario, is what the unit tests do: tests/unit/test_crash_matrix.py.
reliability-brief: venv ## The same in the three hardest ways beside those of the unit tests; writes nothing
	PYTHONPATH=$(COLLECTIONS) tests/reliability/reliability.py --kind full --kind guard --kind power-committed

newer: newer-units newer-upgrade ## The unit tests, and an upgrade, with the newest ansible-core; it wants Python 3.12

newer-units newer-upgrade: newer-%:
	$(MAKE) --no-print-directory VENV=.venv-newer WHICH_PYTHON=newer with-$@

# What depends on neither Ansible nor Python's version has been tested by then.
with-newer-units: venv
	PYTHONPATH=$(COLLECTIONS) pytest -q -p no:cacheprovider tests/unit --ignore tests/unit/test_crash_matrix.py \
	    --ignore tests/unit/test_archive_fuzz.py --ignore tests/unit/test_concurrency.py --ignore tests/unit/test_state_properties.py \
	    --deselect tests/unit/plugins/module_utils/test__guard.py::test_confirming_and_firing_never_both_win

with-newer-upgrade: venv
	$(HOSTS) fresh --hosts 3
	$(PLAY) tests/lab/deploy.yml
	$(PLAY) playbooks/upgrade.yml --extra-vars '{"upgrade_versions": {"node_exporter": "1.9.0", "alertmanager": "0.28.1"}}'
	$(PLAY) playbooks/verify.yml

lab: venv ## Three hosts to try things on, with old versions on them (needs root; see tests/lab)
	$(HOSTS) fresh --hosts 3
	$(PLAY) tests/lab/deploy.yml

lab-down demo-down: venv ## Remove the hosts, of all labs
	$(HOSTS) down --all

demo: venv ## Upgrade a real fleet, then again, then with a bad release
	LAB=.lab tests/lab/demo.sh

integration: venv ## ansible-test integration, on one of the lab's hosts
	$(HOSTS) fresh --hosts 1
	$(PLAY) tests/lab/deploy.yml --extra-vars '{"lab_deploy": {"node_exporter": "1.5.0", "mysqld_exporter": "0.14.0"}}'
	env -u ANSIBLE_COLLECTIONS_PATH tests/tools/integration --color no

molecule: $(SCENARIOS) ## All scenarios: upgrade, rollback, resume, order, plan, exporters, gates, hostile, programs, instances, runs, layouts

$(SCENARIOS): molecule-%: venv
	molecule test --scenario-name $*

bench: venv ## What runs, records, downloads and plans cost, beside what they are to be measured by
	LAB=.lab tests/benchmarks/bench.py
	LAB=.lab tests/benchmarks/gap.py
	PYTHONPATH=$(COLLECTIONS) tests/benchmarks/planning.py
	PYTHONPATH=$(COLLECTIONS) pytest -q -p no:cacheprovider tests/benchmarks/test_state_writes.py tests/benchmarks/test_downloads.py

# In the first lane is what needs processors, in the others what waits for hosts. Each of these has a lab of its own. Two lanes
# want the newer tools, so these are made before.
test: venv ## All of it, each check even where another failed, three side by side; then the hosts are removed
	@tests/lab/prepare.sh
	@units=newer-units; upgrade=newer-upgrade; \
	    if tests/tools/python newer >/dev/null; then make --no-print-directory VENV=.venv-newer WHICH_PYTHON=newer venv || true; \
	    else units=; upgrade=; echo "Left out: newer"; fi; \
	    trap '$(HOSTS) down --all' EXIT; \
	    tests/tools/stages \
	        lint-yaml lint-python lint-ansible lint-docs sanity units $$units reliability-brief \
	            LAB=.lab-c molecule-instances molecule-order $$upgrade -- \
	        LAB=.lab molecule-resume molecule-rollback molecule-plan molecule-hostile -- \
	        LAB=.lab-b molecule-exporters molecule-upgrade molecule-gates molecule-layouts molecule-runs molecule-programs integration
