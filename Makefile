# Everything a developer or a newcomer runs. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# The one tool that is fetched by pip; it installs the rest from the lock.
UV_VERSION := 0.13.9

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/.installed: requirements.lock pyproject.toml
	@bash .ci/venv "$(PYTHON)" "$(UV_VERSION)"
	@touch $@

setup: .venv/.installed ## Make .venv from requirements.lock

demo: .venv/.installed ## A day of events, end to end (INPUT=FILE for your own, ARGS=… for more)
	@$(BIN)/tidemill demo $(if $(INPUT),--input "$(INPUT)") $(ARGS)

up: .venv/.installed ## Run all parts until Ctrl-C (ARGS=--no-airflow for the stream side alone)
	@$(BIN)/tidemill up $(ARGS)

test: .venv/.installed ## Run the tests, about 30 minutes on 2 cores
	@bash .ci/test

soak: .venv/.installed ## Run the tests that take longer
	@$(BIN)/python -m pytest -m soak $(ARGS)

check: .venv/.installed ## Lint, format, types, import rules, SQL, generated code
	@bash .ci/check

format: .venv/.installed ## Put code into the house format
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

proto: .venv/.installed ## Regenerate everything that is made from proto/
	@$(BIN)/python -m ingest_service.contracts.codegen

bench: .venv/.installed ## Run the benchmarks (ONLY=name for one), write build/bench.json
	@$(BIN)/python -m benchmarks $(if $(ONLY),--only "$(ONLY)") $(ARGS)

lock: .venv/.installed ## Compile requirements.lock anew
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--extra dev pyproject.toml -o requirements.lock $(ARGS)

clean: ## Remove what can be made again: .venv, build, caches
	rm -rf .venv build .pytest_cache .ruff_cache .mypy_cache .import_linter_cache

.PHONY: help setup demo up test soak check format proto bench lock clean
