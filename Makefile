# The Python that creates .venv, and what is handed to the demo or to pytest.
PYTHON ?= python3
ARGS ?=
export PYTHON

.PHONY: help demo test env-demo env-test lint clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

demo: env-demo ## Pretrain on small pictures and show the result; ARGS="--seed 1"
	.venv/bin/python tools/demo.py $(ARGS)

test: env-test ## Run the tests; ARGS="-m 'not slow'"
	.venv/bin/python -m pytest $(ARGS)

env-demo: ## Make .venv ready for the demo
	@tools/setup_env.sh demo

env-test: ## Make .venv ready for the tests (compiles mmcv's ops once)
	@tools/setup_env.sh test

lint: env-test ## Check style and formatting
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

clean: ## Remove caches and build results; .venv, .wheels and work_dirs stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
