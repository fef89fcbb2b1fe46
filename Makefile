PYTHON ?= python3
BIN := .venv/bin

.PHONY: devices gpu install wheel kill demo test check lint docs slow mutate oldest bench clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[search,hyperopt,test,dev]'
	touch $@

demo: .venv/installed
	$(BIN)/hebb demo

test: .venv/installed
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

# the wheel, installed into an environment of its own and run from an empty folder
wheel: .venv/installed
	tests/install_check.sh $(BIN)/python

# the documentation site, offline: warnings are errors, the notebooks are executed, every link inside is followed
SITE := docs/_build/html
docs: .venv/installed-docs
	rm -rf docs/_build
	$(BIN)/python -m sphinx -q -W --keep-going -b html -d docs/_build/doctrees -c docs . $(SITE)
	$(BIN)/python docs/check_links.py $(SITE)
	@echo "docs: $(SITE)/index.html"

.venv/installed-docs: .venv/installed
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[docs]'
	touch $@

# minutes: every scheduler, algorithm and arm as a search of its own
slow: .venv/installed
	$(BIN)/python -m pytest -m slow

# minutes: every method, pack and analysis on pretended GPUs, against the CPU's numbers, with the waits of each step
devices: .venv/installed
	$(BIN)/python -m pytest -m devices tests/devices

# minutes of a lent GPU, on a bare machine: what a GPU is wanted for, in parts, into hebb_data/gpu; call it again until it writes
# the record. GPU=--rehearse pretends a GPU, GPU='--split cifar10.npz' cuts the data into parts that travel
gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu.py $(GPU)

mutate: .venv/installed
	$(BIN)/python tests/mutation.py

# minutes: the tests with the oldest versions that pyproject.toml promises, in an environment of their own; what old packages
# say about newer ones, and processes that Ray 2.50 leaves to the garbage collector, are no errors; TORCH_INDEX=URL, an index of CPU builds of torch, saves gigabytes where there is one
OLDEST := .venv-oldest
oldest:
	rm -rf $(OLDEST)
	$(PYTHON) -m venv $(OLDEST)
	$(PYTHON) tests/oldest.py search hyperopt test >$(OLDEST)/oldest.txt
	echo 'pyarrow<20' >>$(OLDEST)/oldest.txt  # Ray's own; later ones need NumPy 2
	$(OLDEST)/bin/pip install --disable-pip-version-check -q $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
		-c $(OLDEST)/oldest.txt -e '.[search,hyperopt,test]'
	$(OLDEST)/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -W ignore::DeprecationWarning -W ignore::FutureWarning \
		-W ignore::ResourceWarning -W ignore::pytest.PytestUnraisableExceptionWarning

OUT ?= hebb_data/benchmarks
# minutes: searches of twelve trials, killed five times and restored; killed workers; a cluster that loses a node
kill: .venv/installed
	$(BIN)/python -m pytest -m survival
	$(BIN)/python tests/kill_search.py $(OUT)/kill 5 12
	$(BIN)/python tests/kill_search.py $(OUT)/kill-asha 3 12 --scheduler asha
	$(BIN)/python tests/kill_search.py $(OUT)/kill-promotion 3 12 --scheduler asha-promotion --workers 1
	$(BIN)/python tests/kill_search.py $(OUT)/kill-packs 3 8 --pack-seeds 2
	for kind in tpe gp random nsga2 front-tpe front-nsga2 warm; do \
		$(BIN)/python tests/kill_search.py $(OUT)/kill-$$kind 3 32 $$kind || exit 1; done
	for kind in final final-points; do $(BIN)/python tests/kill_search.py $(OUT)/kill-$$kind 3 6 $$kind || exit 1; done

# minutes on a quiet machine; PUBLISHED=DIR, a checkout of the published SoftHebb code, and CORINFOMAX=DIR, one of the
# published CorInfoMax code, add the comparisons with them
bench: .venv/installed
	$(BIN)/python benchmarks/hebbian_step.py --out $(OUT)/hebbian_step.json
	$(BIN)/python benchmarks/krotov_step.py --out $(OUT)/krotov_step.json
	$(BIN)/python benchmarks/lpl_step.py --out $(OUT)/lpl_step.json
	$(BIN)/python benchmarks/energy_step.py $(addprefix --published ,$(CORINFOMAX)) --out $(OUT)/energy_step.json
	$(BIN)/python benchmarks/solvers.py --threads 1 --out $(OUT)/solvers.json
	$(BIN)/python benchmarks/classifier_epoch.py --busy --one-thread --out $(OUT)/classifier_epoch.json
	$(BIN)/python benchmarks/time_split.py --out $(OUT)/time_split.json
	$(BIN)/python benchmarks/growth.py --threads 1 --figure $(OUT)/growth.png --out $(OUT)/growth.json
	$(BIN)/python benchmarks/curves.py --all --out $(OUT)/curves.json
	$(BIN)/python benchmarks/pack.py --preset 2SoftHebbCnnDigits --dataset-unsup Digits_1 --dataset-sup Digits_50 \
		--threads 1 --repeats 3 --out $(OUT)/pack.json
	$(BIN)/python benchmarks/peak_memory.py --out $(OUT)/peak_memory.json
	$(BIN)/python benchmarks/memory_stl10.py --out $(OUT)/memory_stl10.json
	$(BIN)/python benchmarks/search_overhead.py --epochs 300 --out $(OUT)/search_overhead.json
	$(BIN)/python benchmarks/search_overhead.py --growth 200 --epochs 5 --out $(OUT)/search_growth.json
	$(BIN)/python benchmarks/stored_scale.py --out $(OUT)/stored_scale.json
	$(BIN)/python benchmarks/samplers.py --out $(OUT)/samplers.json
ifdef PUBLISHED
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/published.py --published $(PUBLISHED) --preset 2SoftHebbCnnCIFAR \
		--out $(OUT)/published-2SoftHebbCnnCIFAR.json
	$(BIN)/python benchmarks/published.py --published $(PUBLISHED) --preset 4SoftHebbCnnCIFAR \
		--classifier-images 5000 --out $(OUT)/published-4SoftHebbCnnCIFAR.json
endif
	$(BIN)/python benchmarks/summary.py $(OUT)

clean:
	rm -rf .venv $(OLDEST) *.egg-info .ruff_cache .mypy_cache .pytest_cache
