# Everything runs in .venv, which `make install` fills from uv.lock. PYTHON chooses the interpreter (3.11 to 3.13).
PYTHON ?= python3
TRANSACTIONS ?= 20000
DAYS ?= 180
SEED ?= 7
SEEDS ?= 200

export DBT_SEND_ANONYMOUS_USAGE_STATS := false
export DAGSTER_DISABLE_TELEMETRY := 1
export GX_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
# Every command is a process of its own: without byte code each would compile what it imports anew.
export PYTHONDONTWRITEBYTECODE :=
export DAGSTER_HOME := $(CURDIR)/.payments/dagster
# LightGBM needs the OpenMP runtime; where the system has none, install.sh links the one that scikit-learn brings.
export LD_LIBRARY_PATH := $(CURDIR)/.venv/openmp$(if $(LD_LIBRARY_PATH),:$(LD_LIBRARY_PATH))

VENV := .venv/bin
# Tests wait for servers half of the time: one worker more than there are cores, and no more than four.
WORKERS = $(shell cores=$$(nproc); echo $$(( cores < 3 ? cores + 1 : 4 )))

.PHONY: help install demo test prove faults mutants lint docs ui clean pictures

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

install: ## make the environment from uv.lock
	@PYTHON="$(PYTHON)" sh orchestration/install.sh
	@mkdir -p "$(DAGSTER_HOME)" && cp orchestration/dagster.yaml "$(DAGSTER_HOME)/dagster.yaml"

demo: install ## run the main job end to end on embedded servers, then print what came out
	@"$(VENV)/python" -m orchestration.demo --transactions $(TRANSACTIONS) --days $(DAYS) --seed $(SEED)

test: lint ## check the style, then run every test at CI size, on all cores
	@"$(VENV)/python" -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

prove: lint ## the same tests at full size
	@PAYMENTS_TEST_SIZE=full "$(VENV)/python" -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

faults: install ## play seeds of faults on the stream: SEEDS of them from SEED on
	@"$(VENV)/python" -m tests.faults.simulator --seed $(SEED) --seeds $(SEEDS)

mutants: install ## plant bugs in the stream one by one, and see that tests catch each
	@"$(VENV)/python" -m tests.cdc.mutants

lint: install ## ruff, mypy, sqlfluff, yamllint, the Dagster definitions and the rules of the dbt project
	@"$(VENV)/ruff" check .
	@"$(VENV)/ruff" format --check .
	@"$(VENV)/sqlfluff" lint
	@"$(VENV)/yamllint" --strict .
	@"$(VENV)/mypy" & types=$$!; "$(VENV)/dagster" definitions validate && wait $$types
	@"$(VENV)/dbt-bouncer" run

docs: install ## build the dbt docs site with its diagrams (needs a built warehouse: make demo)
	@"$(VENV)/python" -m orchestration.docs_site

ui: install ## open the Dagster asset graph on http://127.0.0.1:3000
	@"$(VENV)/dagster" dev

pictures: install ## take the README's pictures anew from the running product (needs chromium)
	@"$(VENV)/python" -m payments.diagrams.pictures

clean: ## stop the servers and remove all state, builds and caches
	@if [ -x "$(VENV)/python" ]; then "$(VENV)/python" -m payments down --delete; fi
	@find .payments -mindepth 1 -not -name .gitignore -delete
	@rm -rf target logs .pytest_cache .mypy_cache .ruff_cache
