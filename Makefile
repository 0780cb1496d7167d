# `make demo` and `make test` set up everything they need in .venv and .home. PYTHON=<interpreter> selects the interpreter.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo ui test test-differences test-page test-stack test-clients chaos chaos-local lint bench bench-stack bench-requests docs release-check audit compose-env clean

READY := .venv/.synced
# Airflow's home, unless a test sets another one.
export AIRFLOW_HOME := $(CURDIR)/.home/airflow

help: ## Show this help
	@sed -n 's/^\([a-z-]*\):.*## /  make \1 \t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 26

demo: $(READY) ## Run the sample flows with the local AWS, and show what each job does
	@.venv/bin/python -m airflow_jobflow.local.demo

ui: $(READY) ## Run Airflow's web UI with the sample DAGs and the local AWS until Ctrl-C; PORT=8080
	@.venv/bin/python -m airflow_jobflow.local.demo.ui $(if $(PORT),--port $(PORT))

# AIRFLOW=3.2, 3.3: with the official constraints in tests/constraints. AIRFLOW=lowest: the lower bounds of pyproject.toml.
PINNED := $(if $(AIRFLOW),.venv-$(AIRFLOW)/.synced)

# Twice as many as cores, because most tests wait. In the order of the files, in which short ones come last.
WORKERS := -n 4 --dist loadfile --no-loadscope-reorder

test: $(or $(PINNED),lint) ## Lint, types and all tests that only need Python; AIRFLOW=3.2 for another Airflow
	.venv$(addprefix -,$(AIRFLOW))/bin/pytest $(WORKERS) --ignore tests/stack --ignore tests/clients --ignore tests/ui/test_page.py \
		$(if $(AIRFLOW),$(addprefix --ignore ,$(NEWEST_ONLY)))

# Tests of files outside the package, or that need tools that conflict with the constraints of an Airflow.
NEWEST_ONLY := tests/benchmarks tests/docs tests/infra tests/ui tests/release tests/unit/test_compose.py

test-differences: $(or $(PINNED),$(READY)) ## Tests of what differs between Airflow versions: attempts, kills, sensors, triggerer; AIRFLOW=3.2
	.venv$(addprefix -,$(AIRFLOW))/bin/pytest $(WORKERS) $(DIFFERENCES)

DIFFERENCES := tests/unit/test_airflow_compat.py tests/unit/test_airflow_compat_contracts.py \
	tests/unit/test_airflow_compat_copies.py \
	tests/unit/test_airflow_compat_features.py tests/unit/test_airflow_public.py \
	tests/unit/test_airflow_version.py tests/unit/test_retry_policy.py tests/unit/test_trigger_eligibility.py tests/unit/triggers \
	tests/local/operators/test_reattach.py tests/local/sensors tests/local/test_state_change_alone.py \
	tests/local/triggers/test_ending.py tests/local/triggers/test_kills.py tests/local/triggers/test_metrics.py tests/dags/test_graphs.py \
	tests/dags/test_glue_crawler_then_job.py tests/dags/test_python_functions.py

test-page: $(READY) ## Tests of the Jobs tab in a browser; needs Chromium
	.venv/bin/pytest tests/ui/test_page.py

# The additional packages of the image of docker-compose.yaml.
STACK := UV_PROJECT_ENVIRONMENT=.venv $$(command -v uv || echo .venv/bin/uv) sync --quiet --frozen --all-extras --group stack --inexact

test-stack: $(READY) ## Tests with two whole Airflows as in docker-compose.yaml; needs Postgres and Redis
	@$(STACK)
	.venv/bin/pytest tests/stack -n 2 --dist loadfile

test-clients: $(READY) ## Tests of other tools with the local AWS; ONLY="awscli moto" for some; needs PyPI, npm and Node.js
	.venv/bin/pytest --durations=0 --durations-min=1 $(if $(ONLY),$(ONLY:%=tests/clients/test_%.py),tests/clients)

chaos: $(READY) ## Random schedules of faults in such a stack; SCHEDULES=100 SEED=<the printed one>
	@$(STACK)
	SCHEDULES=$(or $(SCHEDULES),100) SEED=$(SEED) .venv/bin/pytest -s tests/stack/test_chaos.py

chaos-local: $(READY) ## The same without Airflow's processes; SCHEDULES=80 SEED=<any>
	SCHEDULES=$(or $(SCHEDULES),80) SEED=$(or $(SEED),1000) .venv/bin/pytest -s tests/chaos

lint: $(READY) ## Check lint and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/lint-imports
	.venv/bin/mypy

bench: $(READY) ## Benchmark waits against the Amazon provider, and with faults; ONLY="ecs faults" for parts of it
	@UV_PROJECT_ENVIRONMENT=.venv $$(command -v uv || echo .venv/bin/uv) sync --quiet --frozen --all-extras --group bench --inexact
	.venv/bin/python -m benchmarks.waits $(addprefix --only ,$(ONLY))

bench-stack: $(READY) ## Benchmark a whole Airflow against the Amazon provider, in about an hour; ONLY="many events" for parts of it
	@$(STACK) --group bench
	.venv/bin/python -m benchmarks.stack $(addprefix --only ,$(ONLY))

bench-requests: $(READY) ## Count the requests that one task makes to Airflow's API; needs Postgres and Redis
	@$(STACK)
	.venv/bin/python -m benchmarks.requests

docs: $(READY) ## Build the documentation in docs/_build, with warnings as errors
	@UV_PROJECT_ENVIRONMENT=.venv $$(command -v uv || echo .venv/bin/uv) sync --quiet --frozen --all-extras --group docs --inexact
	.venv/bin/sphinx-build -q -W --keep-going docs docs/_build

release-check: ## Install and use the wheel with each supported Python and Airflow; needs uv
	$(or $(PYTHON),python3) tests/release/environments.py $(addprefix --python ,$(PYTHONS)) $(addprefix --airflow ,$(AIRFLOWS))

audit: $(READY) ## Check imports, workflows and dependencies for problems; needs PyPI
	@UV_PROJECT_ENVIRONMENT=.venv $$(command -v uv || echo .venv/bin/uv) sync --quiet --frozen --all-extras --group audit --inexact
	.venv/bin/deptry airflow_jobflow
	.venv/bin/zizmor --offline --persona pedantic .github
	@mkdir -p .home
	@$$(command -v uv || echo .venv/bin/uv) export --quiet --frozen --no-emit-project --no-default-groups --all-extras -o .home/requirements.txt
	.venv/bin/pip-audit --strict --disable-pip --require-hashes --requirement .home/requirements.txt

compose-env: ## Write the secrets of docker-compose.yaml to .env, once
	@$(or $(PYTHON),python3) airflow_jobflow/local/compose_env.py

clean: ## Remove everything that these commands created
	rm -rf .venv .venv-* .home .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist docs/_build
	find airflow_jobflow dags tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml uv.lock
	@.ci/environment

.venv-%/.synced: $(READY) pyproject.toml $(wildcard tests/constraints/*)
	@.ci/pinned $*
