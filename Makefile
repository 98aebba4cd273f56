# `make test` and `make demo` each work first on a machine that has Python 3.11 or newer with pip and venv, and make.
# Everything goes into .venv; set PYTHON to choose the interpreter that makes it.

SHELL := /bin/sh
BIN := .venv/bin
EXAMPLE := docs/examples/sales_goals
CODE := src dispatcher manager tests .ci $(EXAMPLE)
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.DEFAULT_GOAL := help
.PHONY: docs pages slow help install test demo bench lint types imports tests format pins clean torture fuzz

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

install: ## set up .venv; does nothing if it is up to date
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer was found; set PYTHON." >&2; exit 1; }
	@$(PYTHON) .ci/install.py

test: lint types imports tests ## everything that must pass

demo: install ## the whole of teatree at work on this machine, in a minute
	@$(BIN)/teatree demo

bench: install ## measure; prints JSON lines
	@for script in tests/bench/*.py; do $(BIN)/python "$$script" || exit 1; done

torture: install ## break things by a seed and check all promises; SEED=1 MINUTES=10 ARGS="--s3"
	@cd tests && ../$(BIN)/python -m torture --seed $(or $(SEED),1) --minutes $(or $(MINUTES),10) $(ARGS)

fuzz: install ## compare each converter of values with DuckDB's own text; SEED=1 MINUTES=10
	@cd tests && ../$(BIN)/python -m fuzz $(if $(SEED),--seed $(SEED)) --minutes $(or $(MINUTES),10) $(ARGS)

docs: install ## the pages as a website in build/docs; a broken link is an error
	$(BIN)/mkdocs build --strict --quiet

pages: install ## write the pages that are made from the code: docs/settings.md, functions.md, points.md
	$(BIN)/python .ci/pages.py

lint: install
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: install
	$(BIN)/mypy
	$(BIN)/mypy tests
	$(BIN)/mypy $(EXAMPLE)

imports: install
	$(BIN)/lint-imports

# Four at a time keep two cores busy: nearly half of a test's time is waiting. Each takes consecutive tests, so that what a
# module's tests share is started once.
tests: install
	$(BIN)/pytest -n 4 --dist worksteal -m "not slow" --durations 10

slow: install ## the tests that take many seconds each: older DuckDB releases, the rarer crashes
	$(BIN)/pytest -n 2 -m slow

format: install ## let ruff mend what it can
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

# The pins name no place to download from: pip's configuration does.
pins: install ## resolve requirements.txt anew from pyproject.toml; UPGRADE=--upgrade takes newer releases
	@test -x .make/uv/bin/uv || { $(PYTHON) -m venv .make/uv && .make/uv/bin/pip install --quiet uv; }
	.make/uv/bin/uv pip compile --quiet $(UPGRADE) --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--extra dev --extra docs --output-file requirements.txt pyproject.toml
	@! grep -n '://' requirements.txt

clean: ## remove all that make has made
	rm -rf .venv .make .mypy_cache .ruff_cache .hypothesis .import_linter_cache .pytest_cache dist build
