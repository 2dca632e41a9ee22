# Two commands matter: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV := .venv
AGENT_VENV := .venv-agent
BIN := $(VENV)/bin
DISTRIBUTIONS := protocol agent converter fleet cli
PYTEST_ARGS ?=

.PHONY: help demo test test-fast fuzz check format install broker schemas lock clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: install ## run the whole path once: convert, publish, deploy to three agents, infer, report
	$(BIN)/autoglm-edge demo

test: install $(AGENT_VENV)/.complete broker ## run every test, the slow ones too
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: install $(AGENT_VENV)/.complete broker ## run the fast tests only
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

fuzz: install ## try every parser with atheris (pip install atheris), SECONDS each; not part of the tests
	$(BIN)/python -m tests.fuzz.run $(or $(SECONDS),60)

check: install ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## format the sources and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(VENV)/.complete ## make .venv with both commands

$(VENV)/.complete: requirements/workstation.txt $(DISTRIBUTIONS:%=%/pyproject.toml)
	@$(PYTHON) scripts/bootstrap.py $(VENV) requirements/workstation.txt $(DISTRIBUTIONS)

$(AGENT_VENV)/.complete: requirements/agent.txt protocol/pyproject.toml agent/pyproject.toml
	@$(PYTHON) scripts/bootstrap.py $(AGENT_VENV) requirements/agent.txt protocol agent

broker:
	@$(PYTHON) scripts/broker.py

schemas: install ## write docs/schemas and the generated diagrams anew
	$(BIN)/python scripts/generate_docs.py

lock: install ## resolve the requirement files again
	$(BIN)/python -m pip install --quiet uv
	for name in workstation agent; do $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header requirements/$$name.in -o requirements/$$name.txt; done

clean: ## remove what make install made
	rm -rf $(VENV) $(AGENT_VENV)
