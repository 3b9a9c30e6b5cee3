# Every target sets up what it needs by itself.
SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

FAST := $(wildcard tests/unit tests/model)
# The longer files first, so that the cores end together.
REAL := $(wildcard tests/faults tests/integration)
SCRIPTS := $(wildcard tests/model/test_machine.py)
TYPED := src/relier $(wildcard tests/typing)
# A file at a time per process, which has a server and workers of its own. More of them than cores
# (see tests/conftest.py): they wait for much of what they do.
PYTEST := $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-integration test-fast check lint format types bench env-example cli-reference clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with relier and the tools

$(READY): pyproject.toml scripts/make-venv.sh
	@test -x $(BIN)/python || { rm -rf $(VENV); ./scripts/make-venv.sh $(VENV) $(PYTHON); }
	@echo "setup: installing relier and its tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY) ## kill workers in front of you and count what was lost
	@$(BIN)/rl demo

check: lint types test-fast ## everything quick: run it before every commit

test: check ## everything, on Valkey and then on Redis
	@echo "test: real servers and workers, on the embedded Valkey"
	@RELIER_TEST_SERVER=valkey $(PYTEST) $(REAL)
	@# slow: what says nothing new on another server (the demo, the bench, each pool's way to stop)
	@if command -v redis-server >/dev/null; then \
		echo "test: the same on $$(redis-server --version | cut -d' ' -f1-3)"; \
		RELIER_TEST_SERVER=redis $(PYTEST) -m 'not slow' $(SCRIPTS) $(REAL); \
	else \
		echo "test: SKIPPED the leg on Redis: no redis-server on PATH (apt-get install redis-server)"; \
	fi

test-integration: $(READY) ## real servers and workers, on RELIER_TEST_SERVER=valkey|redis
	@$(PYTEST) $(REAL)

test-fast: $(READY)
	@$(PYTEST) -m 'not slow' $(FAST)

lint: $(READY) ## style and import rules
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { echo "lint: run make format"; exit 1; }
	@$(BIN)/lint-imports --no-cache >$(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }

format: $(READY) ## let ruff rewrite what it can
	@$(BIN)/ruff check --quiet --fix-only
	@$(BIN)/ruff format --quiet

types: $(READY) ## mypy --strict
	@$(BIN)/mypy --no-error-summary $(TYPED)

bench: $(READY) ## relier beside vanilla Celery, in one run
	@$(BIN)/rl bench

env-example: $(READY) ## write .env.example from the table of settings
	@$(BIN)/python scripts/env_example.py

cli-reference: $(READY) ## write docs/cli-reference.md from the commands' own help
	@$(BIN)/python scripts/cli_reference.py

clean: ## remove what make made
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
