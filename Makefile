# Everything below works from a fresh clone with Python 3.11+ (headers, venv), g++ and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := -m pip --quiet --disable-pip-version-check

# Where the comparison with other runtimes has its own Python, beside their packages.
COMPARE := build/compare
PEERS   := benchmarks/peers/requirements.txt

# C++ is built by the tools in .venv.
CMAKE = $(BIN)/cmake -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja
JSON  = $(shell $(BIN)/python -c "import nlohmann_json as m; print(*m.__path__)")/include
CORE  = $(CMAKE) -S csrc -DNLOHMANN_JSON_INCLUDE_DIR=$(JSON)

# Seconds for one program of tests: one that hangs is ended, and its last line names the test.
CTEST = $(BIN)/ctest --timeout 2400

FUZZ_SECONDS ?= 30
FUZZ         := -rss_limit_mb=2048 -timeout=10 -seed=1 -artifact_prefix=build/fuzz/ \
  -print_final_stats=1 -max_total_time=$(shell expr $(FUZZ_SECONDS) / 2)

CSRC      := $(shell find csrc -type f 2>/dev/null)
CPP_FILES := $(shell find csrc tests/cpp benchmarks examples -name '*.cpp' -o -name '*.[ch]' -o -name '*.inl' -o -name '*.cu' 2>/dev/null)

.PHONY: demo cpp-demo build test test-python test-cpp test-tsan test-arm arm test-fuzz fuzz bench \
  compare gpu-check lint clean

demo: $(VENV)/.installed
	$(BIN)/python examples/quickstart.py

# A C++ program on the installed library; then the same text in Python, for comparison.
cpp-demo: MODEL = build/char_lm_int8.safetensors
cpp-demo: TEXT  = build/held_out.txt
cpp-demo: $(VENV)/.installed
	$(BIN)/python examples/export_char_lm.py --model $(MODEL) --text $(TEXT)
	$(CMAKE) -S examples/cpp_inference -B build/cpp-demo \
	  -Dlstm_fastkernels_DIR=$$($(BIN)/python -m lstm_fastkernels --cmakefiles)
	$(BIN)/cmake --build build/cpp-demo
	build/cpp-demo/char_lm $(MODEL) write
	build/cpp-demo/char_lm $(MODEL) score < $(TEXT)
	$(BIN)/python examples/score_char_lm.py $(MODEL) < $(TEXT)

build: $(VENV)/.installed

# What builds goes side by side, each with its output in one piece; the Python tests take all cores.
# One architecture is enough for tests.
test: export CUDA_ARCHS ?= 90
test:
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target build test-cpp test-tsan test-arm \
	  test-fuzz
	$(MAKE) --no-print-directory test-python

test-python: build
	$(BIN)/python -m pytest -q --numprocesses=auto --dist=loadgroup

test-cpp: $(VENV)/.tools
	$(CORE) --preset asan -B build/asan
	$(BIN)/cmake --build build/asan
	$(CTEST) --test-dir build/asan --verbose --parallel $$(nproc)

# What has threads, under ThreadSanitizer.
test-tsan: $(VENV)/.tools
	$(CORE) --preset tsan -B build/tsan
	$(BIN)/cmake --build build/tsan --target concurrent_tests
	build/tsan/tests/concurrent_tests

test-arm:
	@if command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null; \
	then $(MAKE) --no-print-directory arm; \
	else echo "test-arm is skipped: aarch64-linux-gnu-g++ or qemu-aarch64 is missing"; fi

# The C++ tests but CUDA's, cross-compiled for AArch64 and run by qemu.
arm: $(VENV)/.tools
	$(CORE) --preset arm -B build/arm
	$(BIN)/cmake --build build/arm
	$(CTEST) --test-dir build/arm --output-on-failure --parallel $$(nproc)

test-fuzz:
	@mkdir -p build
	@if echo 'extern "C" int LLVMFuzzerTestOneInput(const char *, unsigned long) { return 0; }' | \
	    clang++ -fsanitize=fuzzer,address,undefined -x c++ - -o build/trivial_fuzzer 2>/dev/null; \
	then $(MAKE) --no-print-directory fuzz; \
	else echo "test-fuzz is skipped: there is no clang++ with libFuzzer"; fi

# Half of the time each. New inputs go to build/fuzz/corpus and build/fuzz/packed, from where the
# next run goes on; one that fails to build/fuzz.
fuzz: $(VENV)/.tools
	$(CORE) --preset fuzz -B build/fuzz
	$(BIN)/cmake --build build/fuzz --target fuzz_load fuzz_packed
	mkdir -p build/fuzz/corpus build/fuzz/packed
	build/fuzz/tests/fuzz_load $(FUZZ) -dict=tests/cpp/file/fuzz.dict -max_len=16384 \
	  build/fuzz/corpus tests/data/good build/fuzz/tests/malformed $(wildcard tests/data/found)
	build/fuzz/tests/fuzz_packed $(FUZZ) -max_len=131072 build/fuzz/packed build/fuzz/tests/packed

bench: $(VENV)/.installed
	$(BIN)/python -m pytest -q benchmarks
	$(BIN)/python benchmarks/compare.py

# ARGS='--readme' writes the report into benchmarks/README.md; run_all.py --help has the others.
compare: $(COMPARE)/.installed
	$(COMPARE)/bin/python benchmarks/run_all.py $(ARGS)

# On a machine with a CUDA device, with its own Python; results go to the folder OUT. Call 1 has the
# most important answers, call 2 the rest.
CALL ?= 1
gpu-check:
	$(PYTHON) benchmarks/gpu_check.py --call $(CALL)

lint: $(VENV)/.tools
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy lstm_fastkernels
	$(BIN)/clang-format --dry-run -Werror $(CPP_FILES)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	rm -rf lstm_fastkernels/include lstm_fastkernels/lib
	find lstm_fastkernels -name '*.so' -delete
	find . -name __pycache__ -prune -exec rm -rf {} +

# torch and the build tools come first: the package is compiled against them, without isolation.
%/.tools: pyproject.toml constraints.txt
	$(PYTHON) -m venv $*
	$*/bin/python $(PIP) install --upgrade -c constraints.txt pip
	$*/bin/python $(PIP) install -c constraints.txt --group dev
	touch $@

$(VENV)/.installed: $(VENV)/.tools setup.py $(CSRC)
	$(BIN)/python $(PIP) install --no-build-isolation --no-deps -e .
	touch $@

# A peer that cannot be installed here is left out.
$(COMPARE)/.peers: $(COMPARE)/.tools $(PEERS)
	@while read -r peer; do \
	  $(COMPARE)/bin/python $(PIP) install -c constraints.txt "$$peer" || \
	    echo "$$peer is left out: it cannot be installed"; \
	done < $(PEERS)
	touch $@

$(COMPARE)/.installed: $(COMPARE)/.peers setup.py $(CSRC) $(shell find lstm_fastkernels -name '*.py')
	$(COMPARE)/bin/python $(PIP) install --no-build-isolation --no-deps .
	touch $@
