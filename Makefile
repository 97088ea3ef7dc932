PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SECONDS ?= 60

.PHONY: run test crash fuzz bench clean

run: $(VENV)/run.done  ## the server on this machine, with a chat page to try it
	$(BIN)/python -m sandbox

test: $(VENV)/fuzz.done  ## every check and test; nothing is rewritten
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH="$$PATH:/usr/sbin"; missing=; \
	for tool in redis-server nginx openssl curl; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	[ -z "$$missing" ] || { apt-get update -qq && apt-get install -y -qq $$missing; }
	-command -v chromedriver >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium chromium-driver; }
	$(BIN)/python -m pytest
	$(BIN)/python -m tests.fuzz $(SECONDS)

crash: $(VENV)/dev.done  ## kill -9 at every write and every call of the platform; `make test` takes a sample
	CRASH_POINTS=all $(BIN)/python -m pytest -s tests/test_crash_points.py

fuzz: $(VENV)/fuzz.done  ## SECONDS of it for each target, all at once
	$(BIN)/python -m tests.fuzz $(SECONDS)

bench: $(VENV)/bench.done  ## the benchmarks, beside the peers
	command -v wrk >/dev/null || apt-get install -y wrk
	$(BIN)/python tests/bench/inprocess.py
	$(BIN)/python tests/bench/served.py
	$(BIN)/python tests/bench/footprint.py
	$(BIN)/python tests/bench/slow.py
	$(BIN)/python tests/bench/picture.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.done: requirements.txt requirements-dev.txt | $(VENV)/bin/python
	# cryptography is for the page's switch to safe mode; its version is the one that is tested
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -c requirements-dev.txt cryptography
	touch $@

$(VENV)/dev.done: requirements.txt requirements-dev.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/fuzz.done: tests/fuzz/requirements.txt $(VENV)/dev.done
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/fuzz/requirements.txt
	touch $@

$(VENV)/bench.done: requirements.txt tests/bench/requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r tests/bench/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) .fuzz
