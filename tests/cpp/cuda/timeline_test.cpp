// Which steps are taken together, and where their rows are.
#include <numeric>

#include "check.h"
#include "cuda/host/call_memory.h"
#include "cuda/host/timeline.h"
#include "on_device.h"
#include "stack.h"

namespace lstm_fastkernels {
namespace {

using cuda::Chunk;
using cuda::Timeline;

// A call without memory.
struct Numbers {
  Numbers(int64_t time_steps, int64_t batch, const std::vector<int64_t> &lengths = {}) {
    arguments.time_steps = time_steps;
    arguments.batch_size = batch;
    arguments.lengths = lengths.empty() ? nullptr : lengths.data();
  }
  LstmArguments arguments;
};

// Chunks follow each other, and another step would be too many rows in some direction.
void check_chunks(const Timeline &timeline, int64_t T, int64_t directions, int64_t most_rows,
                  int64_t most_steps) {
  const std::vector<Chunk> chunks = timeline.chunks(most_rows, most_steps);
  int64_t end = 0, rows[2] = {};
  for (const Chunk &chunk : chunks) {
    CHECK(chunk.begin == end && chunk.end > chunk.begin);
    end = chunk.end;
    CHECK(end - chunk.begin <= most_steps);
    bool full = end == T || end - chunk.begin == most_steps;
    for (int64_t d = 0; d < directions; ++d) {
      CHECK(timeline.rows(chunk, d).count <= most_rows || end - chunk.begin == 1);
      full = full || timeline.rows({chunk.begin, end + 1}, d).count > most_rows;
      // The rows of its steps, one after the other in time.
      int64_t next = timeline.rows(chunk, d).first;
      for (int64_t i = 0; i < end - chunk.begin; ++i) {
        const int64_t step = d ? end - 1 - i : chunk.begin + i, t = timeline.time(step, d);
        CHECK(timeline.row_in(chunk, step, d) == next - timeline.rows(chunk, d).first);
        CHECK(timeline.start(t) == next);
        next += timeline.active(t);
      }
      CHECK(next == timeline.rows(chunk, d).first + timeline.rows(chunk, d).count);
      rows[d] += timeline.rows(chunk, d).count;
    }
    CHECK(full);
  }
  CHECK(end == T);
  for (int64_t d = 0; d < directions; ++d)
    CHECK(rows[d] == timeline.all_rows());
}

TEST(chunks_of_a_timeline) {
  const std::vector<int64_t> all_lengths[] = {{}, {7, 1, 3, 6}, {1, 1, 1, 7}, {2, 2, 1, 2}};
  for (const auto &lengths : all_lengths)
    for (int64_t T : {1, 2, 7, 20}) {
      std::vector<int64_t> cut = lengths;
      for (int64_t &length : cut)
        length = std::min(length, T);
      const Numbers of(T, 4, cut);
      const Schedule schedule(of.arguments);
      for (int64_t directions : {1, 2}) {
        const Timeline timeline(schedule, T, directions);
        CHECK(timeline.all_rows() ==
              (cut.empty() ? 4 * T : std::accumulate(cut.begin(), cut.end(), int64_t{0})));
        for (int64_t most_rows : {1, 4, 5, 9, 1000})
          for (int64_t most_steps : {1, 3, 1000}) {
            WITH("T ", T, " directions ", directions, " rows ", most_rows, " steps ", most_steps,
                 " with lengths ", !cut.empty());
            check_chunks(timeline, T, directions, most_rows, most_steps);
          }
      }
    }
}

// H = 1024: 16 KB of input products a row.
TEST(rows_of_a_chunk) {
  const auto rows = [](int64_t T, int64_t B, int64_t directions, int side_by_side,
                       Precision precision = kInt8) {
    const TypedShape shape = shape_of(1, 1024, 0, 1, directions, precision);
    const StackOnDevice on_device(random_stack(shape, Weights::any, 71));
    const cuda::PackedStack &stack = on_device.view().packed();
    const Numbers of(T, B);
    const Schedule schedule(of.arguments);
    return cuda::chunk_rows_for(stack, of.arguments, Timeline(schedule, T, directions),
                                side_by_side);
  };
  CHECK(rows(10'000, 8, 1, 1) == 2048);
  CHECK(rows(10'000, 8, 2, 1) == 1024);
  CHECK(rows(10'000, 64, 1, 1) == 64 * 64); // 64 steps
  CHECK(rows(10'000, 256, 1, 1) == 64 * 256);
  CHECK(rows(10'000, 257, 1, 1) == 2048);
  CHECK(rows(10'000, 64, 1, 1, kFloat32) == 2048);
  CHECK(rows(10'000, 1, 1, 2) == 1024);
  CHECK(rows(4'000, 1, 1, 2) == 500);
  CHECK(rows(500, 1, 1, 2) == 64);
  CHECK(rows(1, 1, 1, 1) == 2048);
}

} // namespace
} // namespace lstm_fastkernels
