# make demo | make test: each creates .venv from requirements/lock.txt first if it is missing or out of date.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3.9 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# The wheel of a framework that never asks for a display must not need one.
export MPLBACKEND := Agg

.PHONY: demo test test-slow test-pythons bench lint lock clean help

help:
	@echo 'make demo          fine-tune a network on handwritten digits, under three minutes'
	@echo 'make test          the fast tests'
	@echo 'make test-slow     every test, real data and all architectures included'
	@echo 'make test-pythons  install, train, save and reload on each Python from 3.9 to 3.12 found here'
	@echo 'make bench         the benchmarks that take minutes'
	@echo 'make lint          ruff'
	@echo 'make lock          renew requirements/lock.txt'

$(READY): setup.py requirements/lock.txt
	@test -n "$(PYTHON)" || { echo 'error: no Python from 3.9 to 3.12 found; install one, or make PYTHON=/path/to/python3' >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV) || { $(PYTHON) -m pip install --user --break-system-packages virtualenv \
		&& $(PYTHON) -m virtualenv --clear $(VENV); }
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/lock.txt
	$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $(READY)

demo: $(READY)
	$(BIN)/python recipes/odd_or_even.py

test: $(READY)
	$(BIN)/python -m pytest -q -m 'not slow'

test-slow: $(READY)
	$(BIN)/python -m pytest -q -rs

test-pythons:
	sh tests/pythons.sh

lint: $(READY)
	$(BIN)/ruff check .

lock:
	sh requirements/lock.sh

clean:
	rm -rf $(VENV)
