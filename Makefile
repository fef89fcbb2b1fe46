PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test check lint mutate clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[search,test,dev]'
	touch $@

demo: .venv/installed
	$(BIN)/python ray_search.py --preset 2SoftHebbCnnDigits --dataset-unsup Digits_1 --dataset-sup Digits_50 \
		--folder-name demo --overwrite

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

mutate: .venv/installed
	$(BIN)/python tests/mutation.py

clean:
	rm -rf .venv *.egg-info .ruff_cache .mypy_cache .pytest_cache
