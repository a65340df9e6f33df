# One vocabulary of tasks, for people, the README and CI alike. `make` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Stages run `python -m ...`: inside the environment, whoever started make.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Two cores serve a small network best with one thread per library and process; torch has its own.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
STAMP := .venv/.installed
# Label Studio's server: its pins collide with ours, so it has an environment of its own.
LABEL_STUDIO := .venv-labelstudio/.installed
WORKERS ?= 2

.PHONY: help setup loop adopt sweep test test-fast check bench doctor ui label-studio label-studio-install \
	label-studio-stop clean

help: ## List the tasks.
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

setup: $(STAMP) ## Make .venv with the tested versions (all other tasks do so by themselves).

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) conf/doctor.py setup
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet -c constraints.txt -e '.[train,annotate,dev]'
	@touch $(STAMP)

loop: $(STAMP) ## Turn the loop to a verdict. EXPERIMENT=name selects conf/experiment/name.yaml, none the defaults.
	@python conf/doctor.py loop
	@$(if $(EXPERIMENT),python -m conf.choose $(EXPERIMENT))
	dvc repro
	@python .github/verdict.py

adopt: $(STAMP) ## Write the settings of experiment EXP=name into conf/.
	@python -m conf.adopt $(EXP)

sweep: $(STAMP) ## Search settings, each trial an experiment (docs/sweeps.md). SWEEP=name selects conf/sweep/name.yaml.
	@python -m training.sweep $(if $(SWEEP),sweep=$(SWEEP))

test: $(STAMP) ## Run all tests.
	python -m pytest -n $(WORKERS) --dist loadgroup

test-fast: $(STAMP) ## Run the tests that take less than five seconds each.
	python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow"

check: $(STAMP) ## Formatting, lint, types, import directions, dvc.yaml against the imports.
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	python -m conf.dependencies --check

bench: $(STAMP) ## Measure: a training step against a bare loop, start-up of each stage, an idle `dvc repro`.
	python -m benchmarks

doctor: ## Say what this machine lacks, and what to do about it.
	@$(or $(wildcard .venv/bin/python),$(PYTHON)) conf/doctor.py

ui: $(STAMP) ## Open MLflow's pages on http://127.0.0.1:5000; choose "Model training" at the top left, once.
	mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlruns.db}" --host 127.0.0.1 --port 5000

label-studio: $(STAMP) $(LABEL_STUDIO) ## Start a Label Studio server of this machine, with an account, on http://127.0.0.1:8080.
	@python -m annotation.server start

label-studio-stop: $(STAMP) ## Stop that server; its data stay in .label-studio.
	@python -m annotation.server stop

label-studio-install: $(LABEL_STUDIO) ## Install the server only (1 GB).

$(LABEL_STUDIO): constraints-label-studio.txt
	$(PYTHON) -m venv .venv-labelstudio
	.venv-labelstudio/bin/python -m pip install --quiet -c constraints-label-studio.txt label-studio
	@touch $(LABEL_STUDIO)

clean: ## Remove what tools leave; results, DVC's cache and the registry stay.
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
