#include "runtime/token_ids.h"

#include <cstring>
#include <string>

#include "common/fail.h"

namespace lstm_fastkernels {
namespace {

int64_t read_id(const uint8_t *from, IdType type) {
  if (type == IdType::int64) {
    int64_t id;
    std::memcpy(&id, from, sizeof id);
    return id;
  }
  int32_t id;
  std::memcpy(&id, from, sizeof id);
  return id;
}

} // namespace

void check_input_kind(const LstmArguments &a, bool takes_ids) {
  if (takes_ids && a.id_type == IdType::none)
    fail("this LSTM reads token ids, int32 or int64, x has values");
  if (!takes_ids && a.id_type != IdType::none)
    fail("this LSTM reads values, x has token ids");
}

Plane checked_ids(const LstmArguments &a, const Schedule &schedule, int64_t count,
                  Workspace &memory) {
  const Plane given = x_plane(a);
  const int64_t last = a.time_steps - 1;
  int32_t *const ids = memory.allocate<int32_t>(schedule.start(last) + schedule.active(last));
  int32_t *next = ids;
  for (int64_t t = 0; t < a.time_steps; ++t)
    for (int64_t row = 0; row < schedule.active(t); ++row) {
      const int64_t id = read_id(given.at(schedule, t, row, 0), a.id_type);
      if (id < 0 || id >= count)
        fail("token ids must be in 0.." + std::to_string(count - 1) + ", got " +
             std::to_string(id) + " at time step " + std::to_string(t) + " of row " +
             std::to_string(schedule.caller_row(row)));
      *next++ = static_cast<int32_t>(id);
    }
  Plane plane;
  plane.addressing = Plane::Addressing::contiguous;
  plane.base = reinterpret_cast<uint8_t *>(ids);
  plane.row_bytes = sizeof(int32_t);
  return plane;
}

} // namespace lstm_fastkernels
