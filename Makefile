# One target a job; `make` lists them. Every target makes the environment first when the lock file changed.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
NBA := .venv/bin/nba
ENV := .venv/lock.sha256

.PHONY: help demo test prove serve worker train batch ui bench bench-online lint format clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(ENV): requirements.lock requirements-uv.lock pyproject.toml
	@.ci/environment

demo: $(ENV) ## the whole pipe on real data, then keep serving until Ctrl-C (ONCE=1: stop at the end)
	@$(NBA) demo $(if $(ONCE),--once)

# Many small matrices on few cores: threads of the algebra libraries would only get in each other's way.
test prove: export OMP_NUM_THREADS = 1
test prove: export OPENBLAS_NUM_THREADS = 1

test: $(ENV) ## lint, types, import rules and the tests
	@.ci/test

prove: $(ENV) ## the long proofs, seeded
	@$(PY) -m pytest -q -m prove

serve: $(ENV) ## the decision service on 127.0.0.1:8000
	@$(NBA) serve

worker: $(ENV) ## apply events and outcomes from the journal, write the lake
	@$(NBA) worker

train: $(ENV) ## load, backfill, materialize, train and register what changed, then make the bundle
	@$(NBA) prepare && $(NBA) agent --once

batch: $(ENV) ## decisions for every customer into var/decisions.parquet (CHANNEL=email)
	@$(NBA) batch --channel $(or $(CHANNEL),email) --out $(or $(OUT),var/decisions.parquet)

ui: $(ENV) ## MLflow on 127.0.0.1:5000
	@$(NBA) ui

bench: $(ENV) ## print the speed: the core, the engine beside other stacks, the loop back (needs make demo ONCE=1, some minutes)
	@$(PY) -m benchmarks
	@$(PY) -m benchmarks.feedback

bench-online: $(ENV) ## the engine beside other stacks alone, into docs/ (8 minutes)
	@$(PY) -m benchmarks --only online

lint: $(ENV) ## ruff, mypy strict
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: $(ENV) ## write the code in the one format
	@$(PY) -m ruff check --fix -q . ; $(PY) -m ruff format .

clean: ## remove the environment and everything generated
	@rm -rf .venv var build ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find mlruns -mindepth 1 ! -name .gitkeep -delete
