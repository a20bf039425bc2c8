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

.PHONY: help venv lint

help: ## What there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

venv: $(VENV)/.made ## The tools, in .venv, with the newest Python from 3.11 on

$(VENV)/.made: tests/requirements.txt tests/tools/python
	python="$$(tests/tools/python)" && "$$python" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@

lint: venv ## All that can be said without running anything
	yamllint --strict .
	ruff check .
	ruff format --check .
	MYPYPATH=$(COLLECTIONS) mypy --config-file .mypy.ini $(STACK)/plugins/module_utils $(STACK)/plugins/plugin_utils
	ansible-lint --offline
	antsibull-changelog lint
