PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SECONDS ?= 60
SEEDS ?= 20000
UV := uv==0.13.9
# For every Python that is supported and every system: a line that one of them alone needs has a marker.
LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-header

.PHONY: run test crash simulate fuzz bench audit lock clean

run: $(VENV)/run.done  ## the server on this machine, with a chat page to try it
	$(BIN)/python -m sandbox

test: $(VENV)/fuzz.done  ## every check and test, on PYTHON; nothing is rewritten
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32
	$(BIN)/python -m pytest --numprocesses 6 --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m tests.fuzz $(SECONDS)

crash: $(VENV)/dev.done  ## kill -9 at every write and every call of the platform; `make test` takes a sample
	CRASH_POINTS=all $(BIN)/python -m pytest -s tests/test_crash_points.py

simulate: $(VENV)/dev.done  ## SEEDS schedules of processes that crash, freeze and lose their store
	$(BIN)/python -m tests.simulation $(SEEDS)

fuzz: $(VENV)/fuzz.done  ## SECONDS of it for each target, all at once
	$(BIN)/python -m tests.fuzz $(SECONDS)

bench: $(VENV)/bench.done  ## every benchmark with a bar, some beside the peers; ends with the bars that are missed
	@for program in wrk redis-server; do command -v $$program >/dev/null || \
		{ echo "$$program is missing; on Debian or Ubuntu: sudo apt-get install wrk redis-server"; exit 1; }; done
	$(BIN)/python -m tests.bench

audit: $(VENV)/dev.done  ## ask pypi.org whether a package of the locks has a known vulnerability
	$(BIN)/python -m tests.audit

lock: $(VENV)/dev.done  ## both locks anew: what is pinned stays, what that needs is the newest
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	$(LOCK) requirements-dev.txt -o requirements-dev.lock
	printf 'cryptography\nredis\nhiredis\n' | $(LOCK) -c requirements-dev.lock requirements.txt - -o requirements.lock

$(BIN)/python:
	@$(PYTHON) wechat/__init__.py  # ends here with a line where it is too old
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)

# An environment that another Python made is made anew.
identity = $(shell $(1) -c "import sys; print(sys.version + sys.base_prefix)" 2>/dev/null)
ifneq ($(call identity,$(PYTHON)),$(call identity,$(BIN)/python))
.PHONY: $(BIN)/python
endif

$(VENV)/run.done: requirements.txt requirements-dev.txt $(BIN)/python
	# cryptography is for the page's switch to safe mode; its version is the one that is tested
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt $$(grep ^cryptography= requirements-dev.txt)
	touch $@

$(VENV)/dev.done: requirements.txt requirements-dev.txt examples/assistant/requirements.txt $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/fuzz.done: tests/fuzz/requirements.txt $(VENV)/dev.done
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/fuzz/requirements.txt
	touch $@

$(VENV)/bench.done: tests/bench/requirements.txt $(VENV)/dev.done
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/bench/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-* .fuzz
