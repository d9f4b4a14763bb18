# make run: the chat on http://127.0.0.1:7860.   make test: every test.   Both set themselves up.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
SOURCES := *.py history model safety demo benchmarks tests

.PHONY: setup run test check fix bench browser postgres

setup: $(READY)

$(READY): requirements.txt requirements-sql.txt requirements-research.txt requirements-dev.txt constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	touch $@

run: setup
	$(BIN)/python app.py

test: setup browser postgres
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

fix: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m benchmarks

# The browser tests drive Debian's Chromium; elsewhere, any chromium on the PATH or in CHROMIUM will do.
browser:
	@command -v chromium >/dev/null || test -n "$$CHROMIUM" || (apt-get update -qq && apt-get install -y -qq chromium)

# The tests of the history start a PostgreSQL server of their own, in a temporary folder.
postgres:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || (apt-get update -qq && apt-get install -y -qq postgresql)
