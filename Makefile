# Two commands matter: `make demo` and `make test`. Each sets up all it needs in .venv.
PYTHON ?= python3
# The CPU build of torch where pip finds one, else whatever the package index gives (on Linux the large GPU build).
# Choose yourself with: make demo TORCH="torch==2.13.0"
TORCH ?=
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench verify-data verify-repeat verify-security verify-safety system clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

setup: $(READY)  ## make .venv with pinned dependencies

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  f"Understudy needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. Try: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
ifneq ($(TORCH),)
	$(BIN)/python -m pip install -q -c constraints.txt "$(TORCH)"
else
	@$(BIN)/python -m pip install -q "torch==2.13.0+cpu" 2>/dev/null \
	  || $(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
endif
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	@touch $(READY)

demo: $(READY)  ## record, inspect, clone, evaluate, report: the whole story in under 5 minutes
	$(BIN)/understudy demo

# Robots and workers are measured in milliseconds, so nothing else runs beside them.
TIMED := tests/robots tests/test_workers.py

test: $(READY)  ## the test suite, under 10 minutes on 2 cores
	$(BIN)/python -m pytest $(addprefix --ignore=,$(TIMED)) -n 2 --dist loadfile
	$(BIN)/python -m pytest $(TIMED)

check: $(READY)  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy src

format: $(READY)  ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## every figure of the docs, into benchmarks/results; can be stopped and continued
	$(BIN)/python benchmarks/run_all.py

verify-data: $(READY)  ## the full form of the promises about data
	$(BIN)/python -m pytest -m full tests/dataset tests/robots/test_record_kills.py

verify-repeat: $(READY)  ## the full form of the promises about repeatability
	$(BIN)/python -m pytest -m full tests --ignore=tests/dataset --ignore=tests/robots/test_record_kills.py

verify-security: $(READY)  ## the full form of the promises about security
	$(BIN)/python -m pytest -m "full or not full" -k "hostile or mutated" tests

verify-safety: $(READY)  ## the full form of the promises about motion; wants the machine to itself, under an hour
	$(BIN)/python benchmarks/safety_timing.py --anew
	$(BIN)/python benchmarks/safety_limits.py --anew

system:  ## Debian packages for videos (EGL) and for the tests that open the report in a browser (Chromium)
	$(shell [ "$$(id -u)" = 0 ] || echo sudo) apt-get update -qq
	$(shell [ "$$(id -u)" = 0 ] || echo sudo) apt-get install -y -qq libegl1 libgl1-mesa-dri chromium

clean:  ## remove .venv and everything the commands wrote
	rm -rf .venv runs data build dist
