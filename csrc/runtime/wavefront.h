// Layers of a stack that run at once: each takes a chunk of steps when the layer below has done it.
#pragma once

#include <cstdint>
#include <mutex>

#include "common/workspace.h"
#include "runtime/team.h"

namespace lstm_fastkernels {

// Hands out the chunks, to any number of threads; they may come late or never. A thread keeps to
// its layer, whose weights its cache holds, while there is something to do in it.
class Wavefront {
public:
  // How many chunks a layer may be ahead of the next one.
  static constexpr int64_t kPlaces = 2;

  Wavefront(Workspace &memory, int64_t layers, int64_t chunks);

  // Calls run(layer, chunk) until no chunk is left to take: each once, one of a layer at a time, in
  // order, when the layer below has done it and the one above has done the last but one before. It
  // must not throw. What was written in a chunk can be read in all that wait for it.
  template <class Run> void work(int64_t first_layer, const Run &run) {
    Taken taken = take(first_layer);
    for (; taken.chunk >= 0; taken = give_and_take(taken))
      run(taken.layer, taken.chunk);
  }

private:
  struct Layer {
    int64_t done; // chunks
    bool busy;
  };
  struct Taken {
    int64_t layer, chunk; // a negative one: there is none left
  };

  // They wait until there is one.
  Taken take(int64_t preferred);
  Taken give_and_take(Taken given);
  Taken next(std::unique_lock<std::mutex> lock, int64_t preferred);
  bool is_ready(int64_t layer) const;
  // One that is ready, the preferred one if it is; or -1.
  int64_t ready(int64_t preferred) const;

  const int64_t num_layers_, chunks_;
  std::mutex mutex_; // of what follows
  Layer *layers_;
  int64_t left_; // to take
  Signal given_; // how many have been
};

} // namespace lstm_fastkernels
