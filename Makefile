# `make demo` and `make test` set up all they need, in .venv and .home. PYTHON=<interpreter> chooses the interpreter.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo ui test test-differences test-page test-stack test-clients chaos chaos-local lint bench bench-stack bench-requests docs release-check audit compose-env clean

READY := .venv/.synced
# Airflow's own files, where tests do not say otherwise.
export AIRFLOW_HOME := $(CURDIR)/.home/airflow

help: ## Show this
	@sed -n 's/^\([a-z-]*\):.*## /  make \1 \t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

demo: $(READY) ## Run the sample flows against an AWS on this machine, and show what each job does
	@.venv/bin/python -m airflow_jobflow.local.demo

ui: $(READY) ## Airflow's web UI with the sample DAGs and the AWS on this machine, until Ctrl-C; PORT=8080
	@.venv/bin/python -m airflow_jobflow.local.demo.ui $(if $(PORT),--port $(PORT))

# AIRFLOW=3.2, 3.3: as the official constraints in tests/constraints pin it. AIRFLOW=lowest: the floors of pyproject.toml.
PINNED := $(if $(AIRFLOW),.venv-$(AIRFLOW)/.synced)

# Twice as many as cores, for most tests wait. In the order of the files, in which the short ones are the last.
WORKERS := -n 4 --dist loadfile --no-loadscope-reorder

test: $(or $(PINNED),lint) ## Lint, types and all tests but those that need more than Python; AIRFLOW=3.2 for another Airflow
	.venv$(addprefix -,$(AIRFLOW))/bin/pytest $(WORKERS) --ignore tests/stack --ignore tests/clients --ignore tests/ui/test_page.py \
		$(if $(AIRFLOW),$(addprefix --ignore ,$(NEWEST_ONLY)))

# Tests of what is beside the package, or that need tools which the constraints of an Airflow leave no room for.
NEWEST_ONLY := tests/benchmarks tests/docs tests/infra tests/ui tests/release tests/unit/test_compose.py

test-differences: $(or $(PINNED),$(READY)) ## What differs between versions of Airflow: attempts, kills, sensors, the triggerer; AIRFLOW=3.2
	.venv$(addprefix -,$(AIRFLOW))/bin/pytest $(WORKERS) $(DIFFERENCES)

DIFFERENCES := tests/unit/test_airflow_compat.py tests/unit/test_airflow_compat_contracts.py \
	tests/unit/test_airflow_compat_copies.py \
	tests/unit/test_airflow_compat_features.py tests/unit/test_airflow_public.py \
	tests/unit/test_airflow_version.py tests/unit/test_retry_policy.py tests/unit/test_trigger_eligibility.py tests/unit/triggers \
	tests/local/operators/test_reattach.py tests/local/sensors tests/local/test_state_change_alone.py \
	tests/local/triggers/test_ending.py tests/local/triggers/test_kills.py tests/local/triggers/test_metrics.py tests/dags/test_graphs.py \
	tests/dags/test_glue_crawler_then_job.py

test-page: $(READY) ## The Jobs tab in a browser; needs Chromium
	.venv/bin/pytest tests/ui/test_page.py

# The packages that the image of docker-compose.yaml has beside the package.
STACK := UV_PROJECT_ENVIRONMENT=.venv $$(command -v uv || echo .venv/bin/uv) sync --quiet --frozen --all-extras --group stack --inexact

test-stack: $(READY) ## Two whole Airflows as in docker-compose.yaml, and what they survive; needs Postgres and Redis
	@$(STACK)
	.venv/bin/pytest tests/stack -n 2 --dist loadfile

test-clients: $(READY) ## Other tools' clients against the local AWS; ONLY="awscli moto" for some; needs PyPI, npm and Node.js
	.venv/bin/pytest --durations=0 --durations-min=1 $(if $(ONLY),$(ONLY:%=tests/clients/test_%.py),tests/clients)

chaos: $(READY) ## Random schedules of faults in one such stack; SCHEDULES=100 SEED=<the one printed>
	@$(STACK)
	SCHEDULES=$(or $(SCHEDULES),100) SEED=$(SEED) .venv/bin/pytest -s tests/stack/test_chaos.py

chaos-local: $(READY) ## The same without Airflow's processes; SCHEDULES=80 SEED=<any>
	SCHEDULES=$(or $(SCHEDULES),80) SEED=$(or $(SEED),1000) .venv/bin/pytest -s tests/chaos

lint: $(READY) ## Lint and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/lint-imports
	.venv/bin/mypy

bench: $(READY) ## Measure against the Amazon provider, and what waits come through; ONLY="ecs faults" for parts of it
	@UV_PROJECT_ENVIRONMENT=.venv $$(command -v uv || echo .venv/bin/uv) sync --quiet --frozen --all-extras --group bench --inexact
	.venv/bin/python -m benchmarks.waits $(addprefix --only ,$(ONLY))

bench-stack: $(READY) ## Measure a whole Airflow against the Amazon provider, about an hour and a half; ONLY="starts events" for parts of it
	@$(STACK) --group bench
	.venv/bin/python -m benchmarks.stack $(addprefix --only ,$(ONLY))

bench-requests: $(READY) ## Count the requests that one task makes to Airflow's API; needs Postgres and Redis
	@$(STACK)
	.venv/bin/python -m benchmarks.requests

docs: $(READY) ## The documentation, into docs/_build, with warnings as errors
	@UV_PROJECT_ENVIRONMENT=.venv $$(command -v uv || echo .venv/bin/uv) sync --quiet --frozen --all-extras --group docs --inexact
	.venv/bin/sphinx-build -q -W --keep-going docs docs/_build

release-check: ## Install and use the wheel with each Python, and each Airflow that is supported; needs uv
	$(or $(PYTHON),python3) tests/release/environments.py $(addprefix --python ,$(PYTHONS)) $(addprefix --airflow ,$(AIRFLOWS))

audit: $(READY) ## Look for trouble in imports, workflows and dependencies; the last needs PyPI
	@UV_PROJECT_ENVIRONMENT=.venv $$(command -v uv || echo .venv/bin/uv) sync --quiet --frozen --all-extras --group audit --inexact
	.venv/bin/deptry airflow_jobflow
	.venv/bin/zizmor --offline --persona pedantic .github
	@mkdir -p .home
	@$$(command -v uv || echo .venv/bin/uv) export --quiet --frozen --no-emit-project --no-default-groups --all-extras -o .home/requirements.txt
	.venv/bin/pip-audit --strict --disable-pip --require-hashes --requirement .home/requirements.txt

compose-env: ## Write the secrets of docker-compose.yaml into .env, once
	@$(or $(PYTHON),python3) airflow_jobflow/local/compose_env.py

clean: ## Remove all that these commands made
	rm -rf .venv .venv-* .home .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist docs/_build
	find airflow_jobflow dags tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml uv.lock
	@.ci/environment

.venv-%/.synced: $(READY) pyproject.toml $(wildcard tests/constraints/*)
	@.ci/pinned $*
