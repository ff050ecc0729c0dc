#include "runtime/wavefront.h"

#include <algorithm>
#include <utility>

namespace lstm_fastkernels {

Wavefront::Wavefront(Workspace &memory, int64_t layers, int64_t chunks)
    : num_layers_(layers), chunks_(chunks), layers_(memory.allocate<Layer>(layers)),
      left_(layers * chunks) {
  std::fill_n(layers_, layers, Layer{0, false});
}

bool Wavefront::is_ready(int64_t layer) const {
  const Layer &own = layers_[layer];
  return !own.busy && own.done < chunks_ && (layer == 0 || layers_[layer - 1].done > own.done) &&
         (layer + 1 == num_layers_ || own.done - layers_[layer + 1].done < kPlaces);
}

int64_t Wavefront::ready(int64_t preferred) const {
  if (is_ready(preferred))
    return preferred;
  int64_t layer = num_layers_ - 1; // the highest: it makes place for those below
  while (layer >= 0 && !is_ready(layer))
    --layer;
  return layer;
}

Wavefront::Taken Wavefront::next(std::unique_lock<std::mutex> lock, int64_t preferred) {
  for (;;) {
    if (left_ == 0)
      return {preferred, -1};
    if (const int64_t layer = ready(preferred); layer >= 0) {
      layers_[layer].busy = true;
      --left_;
      return {layer, layers_[layer].done};
    }
    const uint64_t given = given_.value();
    lock.unlock();
    given_.wait_for_change_of(given);
    lock.lock();
  }
}

Wavefront::Taken Wavefront::take(int64_t preferred) {
  return next(std::unique_lock(mutex_), preferred);
}

Wavefront::Taken Wavefront::give_and_take(Taken given) {
  std::unique_lock lock(mutex_);
  layers_[given.layer].busy = false;
  ++layers_[given.layer].done;
  given_.set(given_.value() + 1);
  return next(std::move(lock), given.layer); // before others can take the next chunk of its layer
}

} // namespace lstm_fastkernels
