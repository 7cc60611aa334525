# `make help` lists the verbs. Needs GNU make 3.81 or newer and a python3; everything else is made by `make setup`.

SHELL := /bin/sh
VENV := $(or $(FMOPS_VENV),.venv)
PY = "$(VENV)/bin/python"
JOBS_PY = "$(or $(FMOPS_JOBS_VENV),.venv-jobs)/bin/python"

# What the user writes reaches the programs through the environment, letter by letter: nothing of it is expanded by
# make or read by the shell, so quotes, $ and backticks mean themselves.
define verbatim
override $(1) := $$(value $(1))
export $(1)
endef
TEXTS := DAG CONF FROM Q INDEX CHUNK VERSION KEEP CORPUS YES STORE PLACE EMBEDDER SOURCE FIELDS BUCKET PREFIX SETTINGS DRY_RUN
$(foreach name,$(TEXTS),$(eval $(call verbatim,$(name))))
# A misspelt variable goes unheeded otherwise: with DRYRUN=1 a sync would write.
unknown = $(filter-out PYTHON AWS_% FMOPS_%,$(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name))))

.DEFAULT_GOAL := help
.PHONY: help setup setup-jobs demo demo-all up down dag ingest ask trace versions rollback clean-versions adopt \
  ui-mlflow sync images test test-slow test-compose lint bench lock reset

help:  ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' Makefile

# Nothing is installed yet: the first Python that is there makes the environment, and looks for the best one itself.
define make_environment
@for python in "$$PYTHON" python3 python3.12 python3.13 python3.11; do \
  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then \
    exec "$$python" -m local.setup_environment $(1); \
  fi; \
done; \
echo 'setup: no Python found: install Python 3.12 (3.11 and 3.13 work too), or set PYTHON=/path/to/python3.12' >&2; \
exit 1
endef

setup:  ## make the environment (at once if it stands); PYTHON=... names the Python, FMOPS_VENV=... the folder
	$(call make_environment,airflow)

setup-jobs:  ## make the environment of jobs, as above; FMOPS_JOBS_VENV=... names the folder
	$(call make_environment,jobs)

demo: setup  ## run the ingestion DAG on real documents and print what came out; CORPUS=full for all of them
	@$(PY) -m local demo

demo-all: setup setup-jobs  ## as demo, then pre-train a small language model, some minutes, and print what came out
	@$(PY) -m local demo-all

up: setup  ## run Airflow with its UI until Ctrl-C; FMOPS_PORT=... moves it from 8080
	@$(PY) -m local up

down: setup  ## end the Airflow that runs
	@$(PY) -m local down

dag: setup  ## run one DAG to its end: make dag DAG=rag_ingestion [CONF='{"key": 1}']
	@$(PY) -m local dag --conf="$$CONF" -- "$$DAG"

ingest: setup  ## ingest a folder of yours: make ingest FROM=~/notes [INDEX=my-docs]
	@$(PY) -m local ingest --from="$$FROM" --index="$$INDEX"

ask: setup  ## ask an index: make ask Q="how do I retry a task?" [INDEX=docs]
	@$(PY) -m include.rag.ask --index="$${INDEX:-docs}" -- "$$Q"

trace: setup  ## where a passage of an answer comes from: make trace CHUNK=... [INDEX=docs]
	@$(PY) -m include.rag.trace --index="$${INDEX:-docs}" -- "$$CHUNK"

versions: setup  ## list the versions of an index [INDEX=my-docs]
	@$(PY) -m include.rag.manage show --index="$${INDEX:-docs}"

rollback: setup  ## let readers have the version before, or another: [INDEX=my-docs] [VERSION=1]
	@$(PY) -m include.rag.manage roll-back --index="$${INDEX:-docs}" $(if $(VERSION),--version="$$VERSION")

clean-versions: setup  ## remove old versions of an index [INDEX=my-docs] [KEEP=2]
	@$(PY) -m include.rag.manage clean-up --index="$${INDEX:-docs}" --keep="$${KEEP:-2}"

adopt: setup  ## answer from an index that others built: make adopt PLACE=... [STORE=...] [EMBEDDER=...] [SOURCE=...] [FIELDS=...]
	@$(PY) -m include.rag.manage adopt --index="$${INDEX:-docs}" --place="$$PLACE" --store="$$STORE" \
	  --embedder="$$EMBEDDER" --source="$$SOURCE" --fields="$$FIELDS"

ui-mlflow: setup  ## show the released models in MLflow until Ctrl-C; FMOPS_MLFLOW_PORT=... moves it from 5000
	@$(PY) -m local ui-mlflow

sync: setup  ## put the project where Amazon MWAA reads it: BUCKET=... [PREFIX=...] [SETTINGS=file.toml] [DRY_RUN=1]
	$(if $(unknown),$(error sync does not know $(unknown): write BUCKET, PREFIX, SETTINGS or DRY_RUN))
	@$(PY) -m local sync

images: setup-jobs  ## write include/catalog/images.yaml from the SageMaker SDK; CHECK=1 only compares
	@$(JOBS_PY) -W ignore::SyntaxWarning -m local.images $(if $(CHECK),--check)

test: setup setup-jobs  ## run the tests that CI runs, in three processes [JOBS=3]
	@$(PY) -m pytest -m "not slow and not compose" -n $(or $(JOBS),3) --dist loadfile --no-loadscope-reorder; status=$$?; \
	echo 'not run: long runs and kill walks (make test-slow), containers (make test-compose)'; exit $$status

test-slow: setup  ## run the long tests: kill walks
	@$(PY) -m pytest -m "slow and not compose"; status=$$?; \
	echo 'not run: the usual tests (make test), containers (make test-compose)'; exit $$status

test-compose: setup  ## run the tests that need Docker
	@$(PY) -m pytest -m compose; status=$$?; \
	echo 'not run: the usual tests (make test), long runs and kill walks (make test-slow)'; exit $$status

lint: setup  ## check style and types
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy

bench: setup  ## measure
	@$(PY) -m benchmarks

# Not after `setup`: that would install by the lock which is to be replaced.
lock:  ## resolve the requirements anew into the locks
	@test -x "$(VENV)/bin/uv" || $(MAKE) setup
	@PATH="$(abspath $(VENV))/bin:$$PATH" $(PY) -m local.lock

reset: setup  ## delete Airflow's home and the data; YES=1 does not ask
	@$(PY) -m local reset
