# Everything below works from a fresh clone with Python 3.11+ (headers, venv), g++ and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check
CPP    := build/cpp-tests

CSRC         := $(shell find csrc -type f 2>/dev/null)
CPP_FILES    := $(shell find csrc tests/cpp benchmarks -name '*.cpp' -o -name '*.h' -o -name '*.inl' 2>/dev/null)
TEST_OBJECTS := $(patsubst %.cpp,$(CPP)/%.o,$(wildcard csrc/core/*.cpp tests/cpp/*.cpp))
TEST_FLAGS   := -std=c++17 -O1 -g -Wall -Wextra -ffp-contract=off -pthread \
                -fsanitize=address,undefined -fno-sanitize-recover=all \
                -Icsrc/include -Icsrc/core

.PHONY: demo test test-python test-cpp bench lint clean

demo: $(VENV)/.installed
	$(BIN)/python examples/quickstart.py

test: test-cpp test-python

test-python: $(VENV)/.installed
	$(BIN)/python -m pytest -q

# The sanitized C++ tests, once per instruction set and once with what the machine has.
test-cpp: $(CPP)/run
	LSTM_FASTKERNELS_ISA=scalar $<
	LSTM_FASTKERNELS_ISA=avx2 $<
	$<

bench: $(VENV)/.installed
	$(BIN)/python -m pytest -q benchmarks
	$(BIN)/python benchmarks/compare.py

lint: $(VENV)/.tools
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy lstm_fastkernels
	$(BIN)/clang-format --dry-run -Werror $(CPP_FILES)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find lstm_fastkernels -name '*.so' -delete
	find . -name __pycache__ -prune -exec rm -rf {} +

# torch and the build tools come first: the package is compiled against them, without isolation.
$(VENV)/.tools: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade -c constraints.txt pip
	$(PIP) install -c constraints.txt --group dev
	touch $@

$(VENV)/.installed: $(VENV)/.tools setup.py $(CSRC)
	$(PIP) install --no-build-isolation --no-deps -e .
	touch $@

$(CPP)/run: $(TEST_OBJECTS)
	$(CXX) $(TEST_FLAGS) $^ -o $@

$(CPP)/%.o: %.cpp Makefile
	@mkdir -p $(@D)
	$(CXX) $(TEST_FLAGS) -MMD -MP -c $< -o $@

-include $(TEST_OBJECTS:.o=.d)
