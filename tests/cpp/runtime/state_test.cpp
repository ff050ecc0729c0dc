// State: its rows, and the bytes it is saved as.
#include <limits>

#include "check.h"
#include "guarded.h"
#include "lstm_fastkernels/model.h"
#include "stack.h"
#include "stored.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

const LstmShape kShape = shape_of(3, 5, 4, 2, 2); // 4 layers, h of 4, c of 5

std::vector<float> values_of(const State &s) {
  const int64_t rows = s.layers() * s.batch_size();
  std::vector<float> all(s.h(), s.h() + rows * s.output_size());
  all.insert(all.end(), s.c(), s.c() + rows * s.hidden_size());
  return all;
}

// h and c of one row in all layers.
std::vector<float> row_of(const State &s, int64_t row) {
  std::vector<float> all;
  for (int64_t layer = 0; layer < s.layers(); ++layer) {
    const int64_t at = layer * s.batch_size() + row;
    all.insert(all.end(), s.h() + at * s.output_size(), s.h() + (at + 1) * s.output_size());
    all.insert(all.end(), s.c() + at * s.hidden_size(), s.c() + (at + 1) * s.hidden_size());
  }
  return all;
}

State random_state(int64_t batch_size, uint64_t seed, const LstmShape &shape = kShape) {
  State state(shape, batch_size);
  const Sequence values = random_sequence(shape, 1, batch_size, seed);
  std::copy(values.h0.begin(), values.h0.end(), state.h());
  std::copy(values.c0.begin(), values.c0.end(), state.c());
  return state;
}

Bytes saved(const State &state) {
  Bytes bytes(state.saved_bytes());
  state.save(bytes.data(), bytes.size());
  return bytes;
}

State restored(const Bytes &bytes) {
  const Guarded<uint8_t> memory(bytes);
  return State::restore(memory.data(), bytes.size());
}

TEST(a_new_state_is_zeros) {
  for (int64_t batch_size : {0, 1, 3}) {
    const State state(kShape, batch_size);
    CHECK(state.layers() == 4 && state.batch_size() == batch_size);
    CHECK(state.output_size() == 4 && state.hidden_size() == 5);
    CHECK_SAME(values_of(state), std::vector<float>(static_cast<size_t>(4 * 9 * batch_size)));
  }
  CHECK(State(kShape).batch_size() == 1);
  CHECK(State(shape_of(3, 5)).output_size() == 5);
}

TEST(impossible_states_are_refused) {
  CHECK_THROWS(State(kShape, -1), "batch_size must be in 0..2147483647, got -1");
  CHECK_THROWS(State(kShape, int64_t{1} << 31), "batch_size must be in 0..2147483647");
  CHECK_THROWS(State(kShape, std::numeric_limits<int64_t>::max()), "batch_size must be in");
  CHECK_THROWS(State(shape_of(3, 0)), "hidden_size must be in");
  CHECK_THROWS(State(shape_of(3, 5, 5)), "proj_size must be in");
}

TEST(copies_of_states_are_independent) {
  State state = random_state(3, 131);
  const std::vector<float> before = values_of(state);
  State copy = state;
  CHECK_SAME(values_of(copy), before);
  state.reset();
  CHECK_SAME(values_of(copy), before);
  CHECK_SAME(values_of(state), std::vector<float>(before.size()));
  state = copy;
  copy.h()[0] = 7;
  CHECK_SAME(values_of(state), before);
}

TEST(one_row_is_reset) {
  for (int64_t row : {0, 1, 2}) {
    WITH("row ", row);
    State state = random_state(3, 132);
    const State before = state;
    state.reset_row(row);
    for (int64_t other = 0; other < 3; ++other)
      CHECK_SAME(row_of(state, other),
                 other == row ? std::vector<float>(4 * 9) : row_of(before, other));
  }
}

TEST(one_row_is_copied) {
  const State from = random_state(5, 133);
  for (int64_t row : {0, 1, 2})
    for (int64_t from_row : {0, 3, 4}) {
      WITH("row ", row, " from ", from_row);
      State state = random_state(3, 134);
      const State before = state;
      state.copy_row(row, from, from_row);
      for (int64_t other = 0; other < 3; ++other)
        CHECK_SAME(row_of(state, other),
                   other == row ? row_of(from, from_row) : row_of(before, other));
    }
}

TEST(rows_are_copied_within_a_state) {
  for (int64_t row : {0, 1, 2})
    for (int64_t from_row : {0, 1, 2}) {
      State state = random_state(3, 135);
      const State before = state;
      state.copy_row(row, state, from_row);
      for (int64_t other = 0; other < 3; ++other)
        CHECK_SAME(row_of(state, other), row_of(before, other == row ? from_row : other));
    }
}

TEST(rows_that_do_not_exist_are_refused) {
  State state = random_state(3, 136);
  const std::vector<float> before = values_of(state);
  const State other = random_state(4, 137);
  for (int64_t row : {int64_t{-1}, int64_t{3}, std::numeric_limits<int64_t>::max(),
                      std::numeric_limits<int64_t>::min()}) {
    const std::string message = check::text("row must be in 0..2, got ", row);
    CHECK_THROWS(state.reset_row(row), message);
    CHECK_THROWS(state.copy_row(row, other, 0), message);
    if (row != 3)
      CHECK_THROWS(state.copy_row(0, other, row), check::text("row must be in 0..3, got ", row));
  }
  CHECK_THROWS(state.copy_row(0, other, 4), "row must be in 0..3, got 4");
  CHECK_THROWS(State(kShape, 0).reset_row(0), "row must be in");
  CHECK_SAME(values_of(state), before);
}

TEST(rows_of_other_lstms_are_refused) {
  State state = random_state(3, 138);
  for (const LstmShape &other : {shape_of(3, 5, 4, 1, 2), shape_of(3, 5, 3, 2, 2),
                                 shape_of(3, 6, 4, 2, 2), shape_of(3, 5, 0, 2, 2)})
    CHECK_THROWS(state.copy_row(0, State(other, 3), 0), "the states are of different LSTMs");
  state.copy_row(0, State(shape_of(9, 5, 4, 4), 3), 0); // of as many layers
}

TEST(saved_states_come_back) {
  for (const LstmShape &shape : std::vector<LstmShape>{
           kShape, shape_of(3, 5), shape_of(1, 1, 0, 1024, 2), shape_of(1, 65535)})
    for (int64_t batch_size : {0, 1, 3}) {
      WITH("layers ", shape.num_layers, " hidden ", shape.hidden_size, " batch ", batch_size);
      const State state = random_state(batch_size, 139, shape);
      const State again = restored(saved(state));
      CHECK(again.layers() == state.layers() && again.batch_size() == batch_size);
      CHECK(again.output_size() == state.output_size());
      CHECK(again.hidden_size() == state.hidden_size());
      CHECK_SAME(values_of(again), values_of(state));
    }
}

// The bytes are the same on every machine: these stay as they are.
TEST(saved_states_have_a_format) {
  State state(shape_of(7, 2), 1);
  for (int i = 0; i < 2; ++i) {
    state.h()[i] = 1;
    state.c()[i] = -2;
  }
  Bytes expected = {'L', 'F', 'K', 'S', 'T', 'A', 'T', 'E'};
  for (uint8_t number : {1, 1, 2, 2, 1, 0}) // version, layers, h, c, rows
    expected.insert(expected.end(), {number, 0, 0, 0});
  for (uint8_t number : {0x3f, 0x3f, 0xc0, 0xc0})
    expected.insert(expected.end(),
                    {0, 0, static_cast<uint8_t>(number == 0x3f ? 0x80 : 0), number});
  CHECK_SAME(saved(state), expected);
}

TEST(states_are_saved_into_their_size) {
  const State state = random_state(3, 140);
  CHECK(state.saved_bytes() == 32 + 4 * 9 * 3 * sizeof(float));
  for (size_t bytes : {size_t{0}, state.saved_bytes() - 1, state.saved_bytes() + 1}) {
    Bytes room(bytes, 5);
    CHECK_THROWS(state.save(room.data(), bytes),
                 check::text("save: the state takes ", state.saved_bytes(), " bytes, not ", bytes));
    CHECK_SAME(room, Bytes(bytes, 5));
  }
}

TEST(states_are_saved_at_any_alignment) {
  const State state = random_state(3, 141);
  for (size_t shift = 0; shift < 8; ++shift) {
    Bytes room(shift + state.saved_bytes());
    state.save(room.data() + shift, state.saved_bytes());
    CHECK_SAME(values_of(State::restore(room.data() + shift, state.saved_bytes())),
               values_of(state));
  }
}

void check_bytes_refused(const Bytes &bytes, const std::string &message) {
  try {
    restored(bytes);
  } catch (const Error &error) {
    WITH("message ", error.what());
    CHECK(error.code() == ErrorCode::invalid_file);
    CHECK(std::string(error.what()).rfind("saved state: " + message, 0) == 0);
    return;
  }
  WITH("message ", message);
  CHECK(!"refused");
}

// With another number at `at` of the header.
template <class T> Bytes with(Bytes bytes, size_t at, T number) {
  std::memcpy(bytes.data() + at, &number, sizeof number);
  return bytes;
}

TEST(saved_states_that_are_cut_or_too_long_are_refused) {
  const Bytes good = saved(random_state(3, 142));
  for (size_t bytes = 0; bytes < good.size(); ++bytes) {
    WITH("bytes ", bytes);
    const Bytes cut(good.begin(), good.begin() + static_cast<int64_t>(bytes));
    check_bytes_refused(cut, bytes < 32 ? check::text("expected at least 32 bytes, got ", bytes)
                                        : check::text("its sizes need another number of bytes "
                                                      "than ",
                                                      bytes));
  }
  for (size_t more : {1, 4, 36}) {
    Bytes longer = good;
    longer.resize(good.size() + more);
    check_bytes_refused(longer, "its sizes need another number of bytes");
  }
}

TEST(bytes_that_are_no_saved_state_are_refused) {
  const Bytes good = saved(random_state(3, 143));
  for (size_t i = 0; i < 8; ++i)
    check_bytes_refused(with(good, i, uint8_t{'x'}), "bad magic number");
  for (uint32_t version : {0u, 2u, 1u << 24})
    check_bytes_refused(with(good, 8, version), check::text("expected version 1, got ", version));
}

TEST(saved_states_of_impossible_sizes_are_refused) {
  const Bytes good = saved(random_state(3, 144));
  constexpr uint32_t kMost = std::numeric_limits<uint32_t>::max();
  for (uint32_t layers : {0u, 2049u, 1u << 31, kMost})
    check_bytes_refused(with(good, 12, layers), "its sizes are not possible");
  for (uint32_t output : {0u, 6u, 65536u, kMost}) // h is at most as wide as c
    check_bytes_refused(with(good, 16, output), "its sizes are not possible");
  for (uint32_t hidden : {0u, 3u, 65536u, kMost})
    check_bytes_refused(with(good, 20, hidden), "its sizes are not possible");
  for (uint32_t layers : {1u, 3u, 5u, 2048u})
    check_bytes_refused(with(good, 12, layers), "its sizes need another number of bytes");
  for (uint64_t rows : {uint64_t{0}, uint64_t{2}, uint64_t{4}, uint64_t{1} << 32 | 3,
                        uint64_t{1} << 63, std::numeric_limits<uint64_t>::max()})
    check_bytes_refused(with(good, 24, rows), "its sizes need another number of bytes");
}

} // namespace
} // namespace lstm_fastkernels
