# Two commands set a fresh machine up and do everything: `make bench` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What bench-peers leaves: one run, which every further call of bench-peers-all continues.
OTHER_NETWORKS := alexnet,squeezenet,densenet121,inception_v1,resnext50_32x4d,efficientnet_b0,mobilenet_v3_large,unet_256,espcn,vit_patch
OTHER_RUN := $(or $(RUN),results/runs/other_networks)
# Once: each use of a recursive variable would ask for the time again. RUN=folder names another.
RUN := $(or $(RUN),results/runs/$(shell date +%Y%m%d-%H%M%S))
# One thread, and all cores.
THREADS ?= $(shell nproc | sed 's/^1$$//; s/^\(.\)/1,\1/; s/^$$/1/')
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# A pytest-benchmark session that nothing but this folder's own settings can change: no plug-ins that are merely
# installed, no options of the shell. Its exit code 1 means that a case failed; the report then shows which.
SESSION := env -u PYTEST_ADDOPTS -u PYTEST_PLUGINS PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 \
	$(BIN)/python -m pytest -c pyproject.toml -p pytest_benchmark.plugin --benchmark-only --benchmark-quiet
HARNESS := $(SESSION) bench
# What follows a session: the report of its run, into results/ or the folder that REPORT_TO names.
REPORT = code=$$?; [ $$code -gt 1 ] || $(BIN)/python -m bench report $(RUN) $(REPORT_TO) || exit $$?; exit $$code
smoke ab bench-peers bench-peers-all reference: REPORT_TO = --out $(RUN)/report

# make contention writes here.
CONTENTION ?= results/contention

# make ab: each of BACKENDS against itself of REV; REV may hold spaces, but no quote and no dollar.
NETWORK ?= resnet50
BACKENDS ?= auto
COMMA := ,
SPACE := $(subst ,, )
PAIRS = $(subst @REV,@$(REV),$(subst $(SPACE),$(COMMA),$(foreach name,$(subst $(COMMA),$(SPACE),$(BACKENDS)),$(name)$(COMMA)$(name)@REV)))
ifeq ($(filter ab,$(MAKECMDGOALS))$(REV),ab)
$(error REV is missing: make ab REV=v0.3.0, REV=commit or REV=./folder)
endif

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo
	@echo "Try first: make smoke, then make bench. Both make .venv at their first start."
	@echo "Exit codes: 0 fine; 2 a step failed: the line \"Error N\" has its code, for pytest and python -m bench 1 where"
	@echo "a result is wrong, a process crashed, something became slower or a test failed."

bench: $(VENV)/bench.stamp  ## check, measure and report every backend on real layers (5 minutes); RUN=folder keeps it there
	@$(HARNESS) --bench-out $(RUN); $(REPORT)

test: $(VENV)/test.stamp  ## run the tests, doctests and benchmarks-as-tests on two cores (8 minutes; no torch needed)
	@$(MAKE) --no-print-directory --jobs 2 test-bench test-library

# Of bench only so many that both halves take the same time.
BENCH_TESTS := tests/test_bench_[a-r]*.py

test-bench: $(VENV)/test.stamp  ## that half of them which is of bench, up to the letter r
	$(BIN)/python -m pytest $(BENCH_TESTS) bench

test-library: $(VENV)/test.stamp  ## the other half: the rest of bench, kernels, conv2d, documents
	$(BIN)/python -m pytest tests conv_impls --ignore-glob='$(BENCH_TESTS)'

test-long: $(VENV)/test.stamp  ## the long form of every proof (15 minutes); OPTIONS="--seed 1 --examples 2000 --kills 50", see pytest --help
	$(BIN)/python -m pytest -m long $(OPTIONS)

test-lowest: $(BIN)/python  ## all tests with the lowest declared versions, of the library, the suite, the tools, other libraries (20 minutes)
	$(BIN)/python tests/environments.py lowest

test-pythons: $(BIN)/python  ## the library on every other Python from 3.11 on that is found here (minutes each)
	$(BIN)/python tests/environments.py pythons

test-models: $(VENV)/test.stamp  ## read every ONNX model of five packages; with the other libraries, against ONNX Runtime
	$(BIN)/python tests/wheels.py

# Another order for each commit, and the same one for the same commit.
SHUFFLE ?= $(shell git rev-list --count HEAD)

test-peers: $(VENV)/peers.stamp $(VENV)/test.stamp  ## all tests with the other libraries and a browser, in a random order; none may be skipped
	$(BIN)/python -m pytest --require-torch --require-chromium --shuffle $(SHUFFLE)

conformance: $(VENV)/test.stamp  ## plans, calls and gradients of every backend, on every system (2 minutes)
	$(BIN)/python -m pytest tests/test_conformance.py tests/test_gradients.py

test-arm:  ## every backend on 64-bit Arm under qemu-user, and the assembly of its tiles; skipped in words without qemu
	bash tests/arm.sh $(ARM)

wrong: $(VENV)/test.stamp  ## try wrong versions of the claiming code: which test catches each (10 minutes)
	$(BIN)/python tests/wrong

smoke: $(VENV)/bench.stamp  ## a benchmark of four small layers and its report, in seconds
	@$(HARNESS) --bench-workload smoke --bench-budget 60 --bench-out $(RUN); $(REPORT)

check: $(VENV)/bench.stamp  ## compare every backend with the float64 reference on the basic problems
	$(BIN)/python -m bench check --workload basic --backends all

# The correctness matrix. A BACKEND, or several with commas.
BACKEND ?= all

matrix: $(VENV)/bench.stamp  ## check every backend in every direction and dtype (2 minutes); BACKEND=numba_simd checks one
	$(BIN)/python -m bench check --workload basic --backends $(BACKEND) --direction fwd,bwd_d,bwd_w --dtype float32,float64

backends: $(VENV)/bench.stamp  ## names of the backends as a JSON list, for the jobs of the matrix
	@$(BIN)/python -c "import conv_impls, json; print('names=' + json.dumps(conv_impls.backends()))"

lint: $(VENV)/test.stamp  ## ruff: format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/test.stamp  ## mypy, strict outside kernels/
	$(BIN)/mypy

format: $(VENV)/test.stamp  ## let ruff format the code and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

parity: $(VENV)/test.stamp  ## compare with torch and the other libraries, which must be installed (make setup-peers)
	$(BIN)/python -m pytest --require-torch tests/test_torch_parity.py tests/test_bench_peers.py

docs: $(VENV)/docs.stamp  ## build the documentation site into docs/build/html; a warning or a broken link is an error (a minute)
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going --quiet docs docs/build/html
	@echo 'open docs/build/html/index.html'

BROWSER := command -v chromium >/dev/null && command -v chromedriver >/dev/null

setup-browser:  ## install Chromium and its driver, for the tests of the page (Debian, Ubuntu); make test does without
	@$(BROWSER) || { $(if $(filter 0,$(shell id -u)),,sudo) apt-get update --quiet=2 && \
		$(if $(filter 0,$(shell id -u)),,sudo) env DEBIAN_FRONTEND=noninteractive \
		apt-get install --quiet=2 --yes --no-install-recommends chromium chromium-driver; }

setup-peers: $(VENV)/peers.stamp  ## install the libraries that bench-peers compares with (3 GB)

ab: $(VENV)/bench.stamp  ## this version against another one: REV=v0.3.0, a commit or ./folder; NETWORK=resnet50 BACKENDS=auto (3 minutes)
	@$(HARNESS) --bench-workload '$(NETWORK)' --bench-backends '$(PAIRS)' --bench-repetitions 3 --bench-seconds 0.09 \
		--bench-budget 900 --bench-out $(RUN); $(REPORT)

bench-peers: $(VENV)/peers.stamp  ## ours and every library installed on the layers of four networks and on sizes, 1 and all threads (20 minutes, 50 at most)
	@$(HARNESS) --bench-workload resnet50,vgg16,mobilenet_v2,convnext_tiny,sizes --bench-backends auto,auto_strict,auto_eager,peers \
		--bench-threads $(THREADS) --bench-repetitions 2 --bench-seconds 0.09 --bench-budget 3000 --bench-out $(RUN); $(REPORT)

# The same options again: what a run was made with is compared with what it is continued with.
bench-peers-all: RUN := $(OTHER_RUN)
bench-peers-all: $(VENV)/peers.stamp  ## the same on ten other networks, in parts of 50 minutes at most: call it again to go on; RUN=folder
	@$(HARNESS) --bench-workload $(OTHER_NETWORKS) --bench-backends auto,auto_strict,auto_eager,peers --bench-threads $(THREADS) \
		--bench-repetitions 2 --bench-seconds 0.09 --bench-budget 3000 \
		$(if $(wildcard $(RUN)/config.json),--bench-resume,--bench-out) $(RUN); $(REPORT)

# Without times (exit code above 1) there is no page; an old one would not belong to the new JSON.
contention: $(VENV)/bench.stamp  ## calls next to 0, 1 and 2 busy processes, ours and other libraries (33 minutes, 2 cores); CONTENTION=folder
	@mkdir -p '$(CONTENTION)' && rm -f '$(CONTENTION)/benchmark.json' '$(CONTENTION)/README.md'
	@$(SESSION) bench/contention.py --benchmark-json='$(CONTENTION)/benchmark.json'; code=$$?; [ $$code -gt 1 ] || \
		$(BIN)/python -m bench.contention '$(CONTENTION)/benchmark.json' --out '$(CONTENTION)/README.md' || exit $$?; exit $$code

reference: $(VENV)/peers.stamp  ## the reference run: ResNet-50 on all fast backends and libraries, 3 repetitions (12 minutes, 25 at most)
	@$(HARNESS) --bench-workload resnet50 --bench-backends fast,peers --bench-threads $(THREADS) --bench-repetitions 3 \
		--bench-seconds 0.09 --bench-budget 1500 --bench-out $(RUN); $(REPORT)

report: $(VENV)/bench.stamp  ## remake results/ from the newest run, without measuring
	$(BIN)/python -m bench report

machine: $(VENV)/bench.stamp  ## what this machine can do: FMA peak, bandwidth, versions
	$(BIN)/python -m bench machine

list: $(VENV)/bench.stamp  ## backends and workloads, one line each
	$(BIN)/python -m bench list

# TAG=v1.2.3 must be the version.
dist: $(VENV)/test.stamp  ## build the sdist and the wheel into dist/; TAG=v1.2.3 refuses another version
	@[ -z '$(TAG)' ] || [ '$(TAG)' = "v$$($(BIN)/python -c 'import conv_impls; print(conv_impls.__version__)')" ] || \
		{ echo "TAG: expected v and the version in conv_impls/_version.py, got $(TAG)"; exit 2; }
	rm -rf dist && $(BIN)/python -m build

setup: $(VENV)/test.stamp  ## only make .venv with everything the targets need

clean:  ## remove .venv and caches; results stay
	rm -rf $(VENV) docs/build docs/made .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "the venv module is missing (Debian: apt install python3-venv)"; rm -rf $(VENV); exit 1; }

$(VENV)/bench.stamp: pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV) (about a minute, once)"
	@$(PIP) -e '.[bench]'
	@touch $@

$(VENV)/test.stamp: pyproject.toml $(VENV)/bench.stamp
	@echo "installing the test tools into $(VENV)"
	@$(PIP) -e '.[bench,test]'
	@touch $@

$(VENV)/docs.stamp: pyproject.toml $(VENV)/bench.stamp
	@echo "installing the documentation tools into $(VENV)"
	@$(PIP) -e '.[docs]'
	@touch $@

$(VENV)/peers.stamp: pyproject.toml $(VENV)/bench.stamp
	@echo "installing the other libraries into $(VENV) (minutes, once)"
	@$(PIP) -e '.[peers]'
	@touch $@

.PHONY: help bench test test-bench test-library test-long test-lowest test-pythons test-models test-peers conformance test-arm wrong smoke check matrix backends lint types format parity docs setup-browser setup-peers ab bench-peers bench-peers-all contention reference report machine list dist setup clean
.DEFAULT_GOAL := help
