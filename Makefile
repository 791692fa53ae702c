# Needs bash and Python 3.11 or newer; installs the rest. PYTHON=... names another Python.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?=
HOURS ?= 1
ROWS ?=
UPGRADE ?=
export PYTHON

BIN := .venv/bin
BENCH_ROWS := $(if $(ROWS),--rows $(ROWS))
SEED ?=
FAULT_TESTS := tests/faults/test_crash_points.py tests/faults/test_hostile_corpus.py
KILL_TESTS := $(patsubst %,tests/acceptance/test_%.py,kill_worker kill_engine goes_on_elsewhere fleet servers_away sources_and_stores)
PYTEST := $(BIN)/python -m pytest -q
# One more than there are processors: tests wait for a third of their time.
SIDE_BY_SIDE := -n $(shell echo $$(($$(nproc) + 1))) --maxprocesses 4 --dist loadfile --max-worker-restart 1
# Those that take long first, so that all processes end at about the same time.
TESTED := $(wildcard $(addprefix tests/,acceptance integration contracts security unit))

.PHONY: help up setup lint lock audit sbom check test test-servers bench bench-short faults faults-short kills soak clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1|/' | awk -F"|" '{printf "%-20s %s\n", $$1, $$2}'

up: ## everything on this machine: installs what is missing, then runs cefmp4 up
	@scripts/up

setup: ## the virtual environment and the programs that the tests use
	@scripts/programs ffmpeg rsync curl
	@scripts/programs --go-on gcc chromium bindfs
	@scripts/venv embedded,dev
	@scripts/player
	@scripts/hls_tools
	@scripts/mermaid
	@scripts/promtool

lint: ## locks, format, lint, types, import rules
	@scripts/venv embedded,dev
	$(BIN)/python -m scripts.lock --check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint ## the same, and the unit tests
	$(PYTEST) $(SIDE_BY_SIDE) tests/unit

test: setup ## unit, contract, integration and acceptance tests, with real servers
	@failed=; \
	$(PYTEST) $(SIDE_BY_SIDE) --no-loadscope-reorder -m "not alone and not long" $(TESTED) \
	|| failed="$$failed side-by-side"; \
	$(PYTEST) -m "alone and not long" $(filter-out tests/unit,$(TESTED)) || failed="$$failed alone"; \
	echo "make test: failed:$${failed:- nothing}"; \
	test -z "$$failed"

test-servers: setup ## the same contracts on the servers that S3_* and REDIS_URL name; EMPTIES that Redis
	TEST_GIVEN_SERVERS=yes $(PYTEST) tests/contracts

bench: setup .venv-peers/.installed ## speed and cost, beside other tools; ROWS=backlog,crash runs some
	$(BIN)/python -m bench $(BENCH_ROWS)

bench-short: setup .venv-peers/.installed ## the same, smaller: a few minutes
	$(BIN)/python -m bench --short $(BENCH_ROWS)

# Apart from ours: one of the peers wants another botocore.
.venv-%/.installed: locks/%.txt
	@echo "installing the $* into .venv-$*"
	@$$(scripts/python) -m venv --clear .venv-$*
	@scripts/locked .venv-$* $* >/dev/null
	@touch $@

lock: .venv-tools/.installed ## writes locks/ from pyproject.toml; UPGRADE=yes takes newer versions
	.venv-tools/bin/python -m scripts.lock $(if $(UPGRADE),--upgrade)

audit: .venv-tools/.installed ## known weaknesses of all that is locked, asked of PyPI; of the workflow and the Dockerfile
	.venv-tools/bin/hadolint Dockerfile
	.venv-tools/bin/zizmor --offline --quiet .github/workflows
	@for lock in locks/*.txt; do echo "$$lock"; \
	.venv-tools/bin/pip-audit --strict --disable-pip --require-hashes -r "$$lock" || failed=yes; \
	done; test -z "$$failed"

sbom: .venv-tools/.installed .venv-runtime/.installed ## build/sbom.cdx.json: what the image is made of (CycloneDX)
	.venv-tools/bin/python -m scripts.sbom

faults: setup ## kills, stops and breaks everything, at length, and prints the matrix; SEED=7 replays
	@started=$$SECONDS; failed=; \
	$(BIN)/python -m tests.faults --jobs 4 $(if $(SEED),--seed $(SEED)) || failed="$$failed matrix"; \
	$(PYTEST) $(SIDE_BY_SIDE) $(FAULT_TESTS) || failed="$$failed tests"; \
	CEFMP4_KILLS=30 $(PYTEST) tests/acceptance/test_kill.py || failed="$$failed kills"; \
	echo "make faults: $$((SECONDS - started)) seconds, failed:$${failed:- nothing}"; \
	test -z "$$failed"

kills: setup ## kills workers and Temporal again and again in mid-encode, takes servers away, and prints figures
	@failed=; \
	CEFMP4_KILLS=30 CEFMP4_ENGINE_KILLS=10 CEFMP4_LOSSES=10 CEFMP4_AWAY_S=60 CEFMP4_JOBS_OF_EACH=10 \
	$(PYTEST) -s $(KILL_TESTS) \
	|| failed=yes; \
	$(PYTEST) -m long $(addprefix --ignore=,$(KILL_TESTS)) $(TESTED) || failed=yes; \
	test -z "$$failed"

faults-short: setup ## the part of it that every change must pass
	$(PYTEST) $(SIDE_BY_SIDE) $(FAULT_TESTS)
	$(BIN)/python -m tests.faults --short

soak: setup ## make soak HOURS=8: random faults for hours; prints the seed of each round
	$(BIN)/python -m tests.faults --hours $(HOURS)

clean: ## removes what make and the tools made; keeps .cefmp4, where up has its data
	rm -rf .venv .venv-* bench/results build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
