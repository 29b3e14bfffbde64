# Skerry's gates.  `make demo` and `make test` do all the set-up on a fresh Linux machine with Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SEEDS := 10000
SIM_SEEDS := 20000
PACKAGES := skerry raft cluster scheduler agents chaos

.PHONY: install demo test lint bench soak docs clean system-packages image
.DELETE_ON_ERROR:

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt tools/system-packages
	@tools/system-packages python
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Skerry and its pinned dependencies into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	@PATH="$(CURDIR)/$(BIN):$$PATH" examples/demo.sh

test: $(STAMP) system-packages
	@$(BIN)/python -m pytest $(PYTEST_FLAGS)

system-packages:
	@tools/system-packages test

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	@mkdir -p out/bench
	@PATH="$(CURDIR)/$(BIN):$$PATH" skerry bench raft --docs docs/benchmarks.md -o json

# Hours: whole clusters from SIM_SEEDS seeds, the schedules of consensus from SEEDS, and its small scopes whole.
soak: $(STAMP) system-packages
	@mkdir -p out/soak
	$(BIN)/skerry sim --seeds $(SIM_SEEDS) -o json > out/soak/sim.json || (cat out/soak/sim.json; exit 1)
	@$(BIN)/python -m chaos.exhaustive > out/soak/exhaustive.json
	@SKERRY_SEEDS=$(SEEDS) $(BIN)/python -m pytest tests/simulation -o timeout=0 $(PYTEST_FLAGS)

# BASE_IMAGE=NAME chooses what it starts from; see docs/compose.md.
IMAGE ?= skerry:local
image:
	@tools/image $(IMAGE)

clean:
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
