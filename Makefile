# Needs bash and Python 3.11 or newer; installs the rest. PYTHON=... names another Python.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?=
HOURS ?= 1
export PYTHON

BIN := .venv/bin
TESTED := $(wildcard tests/unit tests/contracts tests/integration tests/acceptance)

.PHONY: help up setup check test bench faults faults-short soak clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1|/' | awk -F"|" '{printf "%-20s %s\n", $$1, $$2}'

up: ## everything on this machine: installs what is missing, then runs cefmp4 up
	@scripts/up

setup: ## the virtual environment and the programs that the tests use
	@scripts/programs ffmpeg rsync curl
	@scripts/venv embedded,dev

check: ## format, lint, types, import rules, unit tests
	@scripts/venv embedded,dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/unit

test: setup ## unit, contract, integration and acceptance tests, with real servers
	$(BIN)/python -m pytest -q $(TESTED)

bench: setup ## speed and cost, beside other tools
	@scripts/venv embedded,dev,bench
	$(BIN)/python -m bench

faults: setup ## kills, stops and breaks everything, at length
	$(BIN)/python -m pytest -q tests/faults

faults-short: setup ## the part of it that every change must pass
	@echo "no short fault run yet"

soak: setup ## make soak HOURS=8: runs for hours and watches memory and lag
	$(BIN)/python -m bench.soak --hours $(HOURS)

clean: ## removes what make and the tools made; keeps .cefmp4, where up has its data
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
