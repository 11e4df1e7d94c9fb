# make help shows what there is.
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev sweep test report bench docs lint clean
PYTHON_IN_VENV := .venv/bin/python

CONFIG ?= fashion-mini
run-arguments = $(if $(TRIALS),--trials $(TRIALS)) $(if $(WORKERS),--workers $(WORKERS)) $(ARGS)

help: ## Show the targets
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make the environment in .venv, once
	@sh scripts/setup.sh

setup-dev:
	@sh scripts/setup.sh dev

sweep: setup ## Run or resume a sweep: CONFIG=fashion-mini TRIALS= WORKERS= ARGS=
	@exec .venv/bin/sweeps run $(CONFIG) $(run-arguments)

report: setup ## Write the HTML report of CONFIG as it stands
	@exec .venv/bin/sweeps report $(CONFIG) $(ARGS)

test: setup-dev ## Run the tests: ARGS="-m 'not slow'" leaves out the slow ones
	@exec env OMP_NUM_THREADS=1 $(PYTHON_IN_VENV) -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: setup ## Measure speed, as ratios of two things in one run: ARGS="pruning latency"
	@$(PYTHON_IN_VENV) -c 'import torch_pruning' 2>/dev/null || $(PYTHON_IN_VENV) -m pip install -qq --config-settings editable_mode=compat -e '.[bench]'
	@exec $(PYTHON_IN_VENV) -m benchmarks $(ARGS)

docs: setup ## Build the site of docs/ in site/; fails where a link leads nowhere
	@$(PYTHON_IN_VENV) -c 'import mkdocs, mkdocstrings_handlers.python, material, latex2mathml' 2>/dev/null || $(PYTHON_IN_VENV) -m pip install -qq --config-settings editable_mode=compat -e '.[docs]'
	@exec env NO_MKDOCS_2_WARNING=1 $(PYTHON_IN_VENV) -m mkdocs build --strict --quiet

lint: setup-dev ## Check style and types
	@$(PYTHON_IN_VENV) -m ruff check . && $(PYTHON_IN_VENV) -m ruff format --check . && $(PYTHON_IN_VENV) -m mypy

clean: ## Remove the environment and caches; runs/ stays
	rm -rf .venv build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
