#include "cuda/host/steps.h"

#include <map>

#include "cuda/host/arguments.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

// Calls launch(set, stream) with make(call, part, more...) of all parts: one launch for those of
// one arithmetic.
template <class Set, class Make, class... More>
void launch_together(void (*launch)(const Set &, void *), const Call &call,
                     const std::vector<Part> &parts, const Make &make, More... more) {
  std::map<decltype(make(call, parts[0], more...).arithmetic()), Set> sets;
  for (const Part &p : parts) {
    const auto arguments = make(call, p, more...);
    Set &set = sets[arguments.arithmetic()];
    set.of[set.count++] = arguments;
  }
  for (const auto &of_one_arithmetic : sets)
    launch(of_one_arithmetic.second, call.stream);
}

// V's products, for the parts whose matrix is low-rank, quantized for U.
template <class Read, class... More>
void run_v(const Call &call, const std::vector<Part> &parts, const Read &read, More... more) {
  std::vector<Part> low_rank;
  for (const Part &p : parts)
    if (read(call, p, more...).matrix.is_low_rank())
      low_rank.push_back(p);
  if (low_rank.empty())
    return;
  launch_together(products, call, low_rank,
                  [&](const Call &of, const Part &p) { return v_arguments(read(of, p, more...)); });
  launch_together(quantize_rows, call, low_rank, [&](const Call &of, const Part &p) {
    return u_arguments(of, read(of, p, more...));
  });
}

// One launch for all steps of the chunks; each range of rows has its own blocks.
void run_persistent_steps(const Call &call, const std::vector<Part> &parts) {
  const PersistentShape &shape = call.choice(parts[0]).shape;
  SideBySide<PersistentArguments> all;
  for (const Part &p : parts) {
    for (int64_t i = 0; i < shape.ranges; ++i)
      if (i * shape.rows < call.timeline.most_active(p.chunk, p.direction))
        all.of[all.count++] = persistent_arguments(call, p, i);
    p.slot.epoch += static_cast<uint32_t>(p.chunk.end - p.chunk.begin);
  }
  run_persistent(shape, all, call.stream);
  launch_together(quantize_rows, call, parts, last_h_arguments);
}

void run_step(const Call &call, const std::vector<Part> &parts, int64_t s) {
  run_v(call, parts, h_reading, s);
  launch_together(step, call, parts, step_arguments, s);
  if (call.shape.proj_size) {
    launch_together(quantize_rows, call, parts, cell_output_arguments, s);
    run_v(call, parts, cell_output_reading, s);
    launch_together(products, call, parts, projection_arguments, s);
  }
  launch_together(quantize_rows, call, parts, h_arguments, s);
}

} // namespace

void load_layer(const Call &call, int64_t layer) {
  launch_together(load_state, call, call.directions_of(layer), load_state_arguments);
}

void store_layer(const Call &call, int64_t layer) {
  Directions<StoreStateArguments> all;
  for (const Part &p : call.directions_of(layer))
    all.of[all.count++] = store_state_arguments(call, p);
  store_state(all, call.stream);
}

void run_chunk(const Call &call, const std::vector<Part> &parts) {
  launch_together(quantize_rows, call, parts, input_arguments);
  run_v(call, parts, input_reading);
  launch_together(products, call, parts, input_products_arguments);
  if (call.choice(parts[0]).persistent)
    return run_persistent_steps(call, parts);
  for (int64_t s = parts[0].chunk.begin; s < parts[0].chunk.end; ++s)
    run_step(call, parts, s);
}

void run_single_step(const Call &call, int64_t layer) {
  launch_together(single_step, call, call.directions_of(layer), single_step_arguments);
}

} // namespace cuda
} // namespace lstm_fastkernels
