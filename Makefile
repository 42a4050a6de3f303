# PYTHON creates .venv; ARGS are passed to the demo or to pytest. Tests run in WORKERS
# processes; 0 runs them in pytest's own, as debuggers (--pdb) need it.
PYTHON ?= python3
ARGS ?=
WORKERS ?= 2
export PYTHON

.PHONY: help demo test upstream env-demo env-test lint clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

demo: env-demo ## Pretrain on small images and write a report; ARGS="--out runs/short --epochs 5"
	.venv/bin/mixmim pretrain --demo --out runs/demo $(ARGS)

test: env-test ## Run the tests; ARGS="-m 'not slow'", WORKERS=4
	.venv/bin/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

env-demo: ## Set up .venv for the demo
	@tools/setup_env.sh demo

env-test: ## Set up .venv for the tests (compiles mmcv's ops once)
	@tools/setup_env.sh test

upstream: env-test ## Check upstream's mmengine, mmcv-lite and mmpretrain
	PYTHON=.venv/bin/python tools/check_upstream.sh

lint: env-test ## Check style, formatting and the direction of imports
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports

clean: ## Remove caches and build output; keeps .venv, .wheels and work_dirs
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
