#include "cuda/host/steps.h"

#include "cuda/host/arguments.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

// One launch's arguments: make(call, part, more...) for each part.
template <class Set, class Make, class... More>
Set together(const Call &call, const std::vector<Part> &parts, const Make &make, More... more) {
  Set set;
  for (const Part &p : parts)
    set.of[set.count++] = make(call, p, more...);
  return set;
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
}

void run_step(const Call &call, const std::vector<Part> &parts, int64_t s) {
  step(call.stack.arithmetic, together<Directions<StepArguments>>(call, parts, step_arguments, s),
       call.stream);
  if (!call.shape.proj_size)
    return;
  products(call.stack.arithmetic,
           together<SideBySide<ProductsArguments>>(call, parts, projection_arguments, s),
           call.stream);
  quantize_rows(call.stack.arithmetic,
                together<SideBySide<QuantizeArguments>>(call, parts, projected_arguments, s),
                call.stream);
}

} // namespace

void load_layer(const Call &call, int64_t layer) {
  load_state(call.stack.arithmetic,
             together<Directions<LoadStateArguments>>(call, call.directions_of(layer),
                                                      load_state_arguments),
             call.stream);
}

void store_layer(const Call &call, int64_t layer) {
  store_state(together<Directions<StoreStateArguments>>(call, call.directions_of(layer),
                                                        store_state_arguments),
              call.stream);
}

void run_chunk(const Call &call, const std::vector<Part> &parts) {
  quantize_rows(call.stack.arithmetic,
                together<SideBySide<QuantizeArguments>>(call, parts, input_arguments), call.stream);
  products(call.stack.arithmetic,
           together<SideBySide<ProductsArguments>>(call, parts, input_products_arguments),
           call.stream);
  if (call.choice(parts[0]).persistent)
    return run_persistent_steps(call, parts);
  for (int64_t s = parts[0].chunk.begin; s < parts[0].chunk.end; ++s)
    run_step(call, parts, s);
}

void run_single_step(const Call &call, int64_t layer) {
  single_step(call.stack.arithmetic,
              together<Directions<SingleStepArguments>>(call, call.directions_of(layer),
                                                        single_step_arguments),
              call.stream);
}

} // namespace cuda
} // namespace lstm_fastkernels
