SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3.14 python3,$(if $(shell $(p) -c 'import sys; print(sys.version_info >= (3, 11) or "")' 2>/dev/null),$(p))) python3)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
MINUTES ?= 1

.PHONY: help demo test check bench simulation chaos format fuzz
.PHONY: check-format check-lint check-types check-contracts check-audit

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo '  Arguments are passed on in ARGS, as in: make test ARGS="tests/unit -x"'

demo: $(VENV)/.installed-demo ## the main job on this machine: a canary promoted, a bad one rolled back
	$(BIN)/canary-bot demo $(ARGS)

test: $(VENV)/.installed-dev ## all tests; fetches what they need from Debian where it may
	@missing="$$(.ci/machine)"; \
	if [ -n "$$missing" ]; then export ALLOW_MISSING=1; fi; \
	.ci/tests $(BIN)/python $(ARGS)

check: check-format check-lint check-types check-contracts check-audit ## format, lint, types, import contracts, advisories

bench: $(VENV)/.installed-dev ## the benchmarks; QUICK=1 for a short run
	$(BIN)/python -m tests.bench $(ARGS)

fuzz: $(VENV)/.installed-dev ## lines for the parser and bytes for the HTTP port, MINUTES=30 of each
	$(BIN)/python -m tests.security.fuzz_parser --minutes $(MINUTES) $(ARGS)
	$(BIN)/python -m tests.security.fuzz_http --minutes $(MINUTES) $(ARGS)

simulation: $(VENV)/.installed-dev ## the bot in simulated worlds full of faults; RUNS=100000 for the long one
	$(BIN)/python -m tests.simulation --runs $(or $(RUNS),1000) $(ARGS)

chaos: $(VENV)/.installed-dev ## the bot's processes among real faults; RUNS=300 JOBS=4 for the long one
	$(BIN)/python -m tests.chaos --runs $(or $(RUNS),8) --jobs $(or $(JOBS),2) $(ARGS)

format: $(VENV)/.installed-dev ## put the code into the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check-format: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .

check-lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .

check-types: $(VENV)/.installed-dev
	$(BIN)/mypy --strict bot
	$(BIN)/mypy tests

check-contracts: $(VENV)/.installed-dev
	$(BIN)/lint-imports --no-logo

check-audit: $(VENV)/.installed-dev
	$(BIN)/python .ci/audit.py

$(BIN)/python:
	@.ci/venv "$(PYTHON)" "$(VENV)"

$(VENV)/.installed-demo: pyproject.toml | $(BIN)/python
	@echo 'Installing into $(VENV) (a minute or so, once)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,charts]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo 'Installing into $(VENV) (a minute or so, once)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,charts,dev]'
	@touch $@ $(VENV)/.installed-demo

.tools/bin/helm:
	@.ci/helm
