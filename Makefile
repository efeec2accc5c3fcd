# The commands of this project. The first `make run` and the first `make test` install what they need into .venv;
# later ones use it as it is and need no network. So do the clients that tests run, in environments below .venv-clients
# and, for `make test-js` and `make test-browser`, in the node_modules of tests/clients/fal_js.

# The first of these that is Python 3.11 or later makes .venv; PYTHON=/path/to/python3.12 goes before them.
PYTHON ?= python3.13 python3.12 python3.11 python3
VENV := .venv
BIN := $(VENV)/bin
JS := tests/clients/fal_js

# An environment remembers the folder it was made in: in another one, or without its Python, its programs don't start.
STALE := $(shell test "$$(cat $(VENV)/made 2>/dev/null)" = "$(CURDIR)" && $(BIN)/python -c '' 2>/dev/null || echo stale)

.PHONY: help run test test-js test-browser clients js-client chaos bench readme check clean stale

help:
	@echo "make run     start everything; Ctrl-C stops it"
	@echo "make test    all tests; ARGS=... is passed to pytest"
	@echo "make test-js, make test-browser   fal's JavaScript client; they need Node, npm and, the second one, Chromium"
	@echo "make chaos   breaks everything around the queue under load, some 15 minutes; writes docs/reliability.md"
	@echo "make readme  every block of the README, in a clean clone"
	@echo "make bench   measure against a plain Flask and Celery app, some 12 minutes; ARGS=... as in docs/performance.md"
	@echo "make check   ruff and mypy"
	@echo "make clean   remove .venv, .venv-clients and caches (the data in .run stays)"

run: $(VENV)/run.stamp
	@$(BIN)/python -m eas_queue.run

# Most tests wait for processes: three at a time take a third as long, on two cores, too. A file stays together.
test: $(VENV)/run.stamp clients
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

# The official clients that tests run, in the versions of tests/clients/*.txt.
clients: $(VENV)/run.stamp
	@$(BIN)/python -m tests.support.clients

# fal's JavaScript client, in Node and in a page. Not part of `make test`, which needs nothing but Python.
test-js: $(VENV)/run.stamp js-client
	@$(BIN)/python -m pytest -n 2 --dist loadfile tests/js $(ARGS)

test-browser: $(VENV)/run.stamp js-client
	@$(BIN)/python -m pytest tests/browser $(ARGS)

js-client: $(JS)/node_modules/.package-lock.json

chaos: $(VENV)/run.stamp
	@$(BIN)/python -m tests.chaos $(ARGS)

readme: $(VENV)/run.stamp
	@$(BIN)/python scripts/run_readme.py

bench: $(VENV)/bench.stamp
	@command -v wrk >/dev/null || { echo "wrk is needed; on Debian and Ubuntu: apt install wrk" >&2; exit 1; }
	@$(BIN)/python -m benchmarks.against --keep $(ARGS)

check: $(VENV)/dev.stamp
	@$(BIN)/python -m ruff check
	@$(BIN)/python -m mypy

clean:
	rm -rf $(VENV) .venv-clients $(JS)/node_modules .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/made: $(STALE)
	@for python in $(PYTHON); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			found=$$python; break; \
		fi; \
	done; \
	if test -z "$$found"; then \
		echo "Python 3.11 or later is needed; tried: $(PYTHON)." >&2; \
		echo "Install one, or name it: PYTHON=/path/to/python3.11 make $(MAKECMDGOALS)" >&2; \
		exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
		echo "$$found has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; \
		exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" --version)"; \
	rm -rf $(VENV) && "$$found" -m venv $(VENV) && printf '%s\n' "$(CURDIR)" >$@

$(VENV)/run.stamp: requirements.txt constraints.txt $(VENV)/made
	$(call install,requirements.txt)
	@touch $@

# requirements-dev.txt includes requirements.txt.
$(VENV)/dev.stamp: requirements-dev.txt requirements.txt constraints.txt $(VENV)/made
	$(call install,requirements-dev.txt)
	@touch $(VENV)/run.stamp $@

# So does benchmarks/requirements.txt.
$(VENV)/bench.stamp: benchmarks/requirements.txt requirements.txt constraints.txt $(VENV)/made
	$(call install,benchmarks/requirements.txt)
	@touch $(VENV)/run.stamp $@

# npm writes this file itself, at the end.
$(JS)/node_modules/.package-lock.json: $(JS)/package-lock.json
	@command -v npm >/dev/null || { echo "Node 18 or later with npm is needed; on Debian and Ubuntu: apt install npm" >&2; exit 1; }
	@echo "Installing fal's JavaScript client into $(JS)/node_modules (once)"
	@npm ci --prefix $(JS) --no-progress --loglevel=error </dev/null
	@touch $@

define install
	@echo "Installing $(1) into $(VENV) (once, some 20 s)"
	@$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check -r $(1) >$(VENV)/install.log 2>&1 || \
		{ tail -n 20 $(VENV)/install.log >&2; echo "Not installed; all of it: $(VENV)/install.log" >&2; exit 1; }
endef
