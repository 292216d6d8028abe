# The front door. Every target makes its own virtual environment when it is missing or older than what it is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SOURCES := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test torture matrix check bench docs server clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# What a user of the demo needs: small, so that the first look does not wait for torch.
$(VENV)/.ready-demo: $(SOURCES) | $(VENV)/bin/python
	@echo "Installing mantik with what the demo needs into $(VENV) ..."
	@$(INSTALL) --upgrade pip
	@$(INSTALL) -e '.[server,sklearn]'
	@touch $@

# What tests and checks need: every extra and the development tools.
$(VENV)/.ready-dev: $(SOURCES) | $(VENV)/bin/python
	@echo "Installing mantik with every extra and the development tools into $(VENV) ..."
	@$(INSTALL) --upgrade pip
	@$(INSTALL) torch
	@$(INSTALL) -e '.[all]' --group dev
	@touch $@ $(VENV)/.ready-demo

demo: $(VENV)/.ready-demo  ## track a real training on an embedded platform and open it in the browser
	@$(BIN)/python examples/demo.py

test: $(VENV)/.ready-dev  ## run the test suite
	@tools/ensure-chromium
	@tools/ensure-slurm
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

torture: $(VENV)/.ready-dev  ## kill trainings and syncs at 200 random moments each, record every estimator as a whole, run 200 jobs
	KILLS=200 $(BIN)/python -m pytest -q tests/durability/test_kills.py
	THOROUGH=1 $(BIN)/python -m pytest -q -m thorough --timeout=1200
	WHOLE_ESTIMATORS=1 $(BIN)/python -m pytest -q --timeout=1200 tests/integrations/sklearn/test_estimators.py
	JOBS=200 $(BIN)/python -m pytest -q --timeout=5400 tests/server/compute/test_jobs_end_to_end.py -k at_once

matrix: $(VENV)/.ready-dev  ## track between versions of MLflow: older clients, older servers
	$(BIN)/python -m tests.matrix

check: $(VENV)/.ready-dev  ## lint, types, house plan, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The trackers that mantik is compared with, where their dependencies disturb nobody.
.venv-peers/.ready:
	$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check wandb trackio lightning keras $$(grep '^torch==' constraints.txt)
	@touch $@

bench: $(VENV)/.ready-dev .venv-peers/.ready  ## measure what tracking costs
	$(BIN)/python -m benchmarks

docs: $(VENV)/.ready-dev  ## serve the documentation on a local port
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

server: $(VENV)/.ready-demo  ## run a platform in the foreground
	$(BIN)/mantik server

clean:  ## remove the virtual environment and everything built
	rm -rf $(VENV) .venv-matrix .venv-peers site dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
