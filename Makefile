# make demo | make test: each creates .venv from requirements/lock.txt first if it is missing or out of date (NumPy 1 up
# to Python 3.12, NumPy 2 from 3.13 on); make test-numpy2 creates .venv-numpy2 from requirements/lock-numpy2.txt.
# Another Python: make PYTHON=/path/to/python3 demo
PYTHON ?= $(shell sh requirements/find_pythons.sh | head -n 1 | cut -d ' ' -f 2)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
VENV2 := .venv-numpy2
VENVDOCS := .venv-docs
# The tests run in so many processes, each with one thread for MXNet: two threads gain tiny networks nothing.
PROCESSES ?= 2
PYTEST_WITH = OMP_NUM_THREADS=1 $(1)/bin/python -m pytest -q -n $(PROCESSES) --dist worksteal
PYTEST := $(call PYTEST_WITH,$(VENV))
# Curves are drawn into files: no display is needed, and none is asked for.
export MPLBACKEND := Agg

.PHONY: demo test test-numpy2 test-slow coverage test-pythons bench bench-speed lint docs pictures dist lock clean help

help:
	@echo 'make demo          fine-tune networks on handwritten digits and on a few photos, minutes'
	@echo 'make test          the fast tests'
	@echo 'make test-numpy2   the fast tests with NumPy 2; TESTS=tests/runtime some of them'
	@echo 'make test-slow     every test, real data and all architectures included'
	@echo 'make test-pythons  install, train, save, reload on each Python found here; TESTS=tests all tests'
	@echo 'make bench         accuracy of every row that can be run here, quick, under 15 minutes'
	@echo 'make bench-speed   training speed as ratios, on a quiet machine, half an hour'
	@echo 'make lint          ruff, the layers of the package (import-linter), types (basedpyright)'
	@echo 'make coverage      the fast tests, with the lines that they do not reach'
	@echo 'make docs          the documentation as web pages, into site/'
	@echo 'make pictures      draw the pictures of the documentation again; needs Chromium'
	@echo 'make dist          sdist and wheel, into dist/'
	@echo 'make lock          renew requirements/lock.txt and lock-numpy2.txt'
	@echo 'make clean         remove the environments that these made'

$(READY): setup.py requirements/lock.txt
	@test -n "$(PYTHON)" || { echo 'error: no Python from 3.9 to 3.14 found; install one (apt-get install python3 python3-venv), or make PYTHON=/path/to/python3' >&2; exit 2; }
	@echo 'installing into $(VENV), with $(PYTHON)'
	@sh requirements/make_env.sh '$(PYTHON)' $(VENV)

$(VENV2)/ready: setup.py requirements/lock-numpy2.txt
	@test -n "$(PYTHON)" || { echo 'error: no Python from 3.9 to 3.14 found' >&2; exit 2; }
	@echo 'installing into $(VENV2), with $(PYTHON)'
	@sh requirements/make_env.sh '$(PYTHON)' $(VENV2) lock-numpy2.txt

demo: $(READY)
	$(BIN)/python recipes/odd_or_even.py
	$(BIN)/python recipes/few_photos.py

test: $(READY)
	$(PYTEST) -m 'not slow'

test-numpy2: $(VENV2)/ready
	$(call PYTEST_WITH,$(VENV2)) -m 'not slow' $(TESTS)

test-slow: $(READY)
	$(PYTEST) -rs

coverage: $(READY)
	$(PYTEST) -m 'not slow' --cov=gluon_ft --cov-report=term-missing:skip-covered

test-pythons:
	@sh tests/pythons.sh $(TESTS)

bench: $(READY)
	$(BIN)/python benchmarks/accuracy/check.py --quick

bench-speed: $(READY)
	$(BIN)/python benchmarks/speed/all.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright

$(VENVDOCS)/ready: requirements/lock-docs.txt
	@test -n "$(PYTHON)" || { echo 'error: no Python from 3.10 to 3.14 found' >&2; exit 2; }
	@sh requirements/make_env.sh '$(PYTHON)' $(VENVDOCS) lock-docs.txt

docs: $(VENVDOCS)/ready
	NO_MKDOCS_2_WARNING=1 $(VENVDOCS)/bin/mkdocs build --strict
	@echo 'documentation: site/index.html'

pictures: $(READY)
	$(BIN)/python tools/make_pictures.py

dist: $(VENVDOCS)/ready
	rm -rf dist build
	$(VENVDOCS)/bin/python -m build
	$(VENVDOCS)/bin/twine check --strict dist/*

lock:
	sh requirements/lock.sh

clean:
	rm -rf $(VENV) $(VENV2) $(VENVDOCS) pythons site dist build
