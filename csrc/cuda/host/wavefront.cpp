#include "cuda/host/wavefront.h"

#include <cstdint>
#include <vector>

#include "cuda/host/steps.h"
#include "cuda/kernels/persistent.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

// A wavefront. In each wave a layer runs the chunk that the layer below has just finished; within a
// group, the one that it finished in the wave before, so that all layers of the group, each at
// another chunk, run concurrently.
void run_forward(const Call &call, const std::vector<Chunk> &chunks) {
  const std::vector<LayerGroup> groups = groups_of(call.plan.layers);
  for (int64_t layer = 0; layer < call.shape.num_layers; ++layer)
    load_layer(call, layer);
  const int64_t num_chunks = static_cast<int64_t>(chunks.size());
  const int64_t last_behind = call.shape.num_layers - static_cast<int64_t>(groups.size());
  for (int64_t wave = 0; wave < num_chunks + last_behind; ++wave) {
    int64_t behind = 0; // the chunks between a layer and the first
    for (const LayerGroup &group : groups) {
      std::vector<Part> parts;
      for (int64_t i = 0; i < group.count; ++i) {
        const int64_t chunk = wave - behind - i;
        if (0 <= chunk && chunk < num_chunks)
          parts.push_back(call.part(group.first + i, 0, i, chunks[static_cast<size_t>(chunk)]));
      }
      behind += group.count - 1;
      if (!parts.empty())
        run_chunk(call, parts);
    }
  }
  for (int64_t layer = 0; layer < call.shape.num_layers; ++layer)
    store_layer(call, layer);
}

// Both directions of a layer need the whole output of the layer below.
void run_bidirectional(const Call &call, const std::vector<Chunk> &chunks) {
  for (int64_t layer = 0; layer < call.shape.num_layers; ++layer) {
    load_layer(call, layer);
    for (const Chunk &chunk : chunks)
      run_chunk(call, call.directions_of(layer, chunk));
    store_layer(call, layer);
  }
}

} // namespace

void run_chunks(const Call &call) {
  const std::vector<Chunk> chunks = call.timeline.chunks(call.memory.chunk_rows, kMostSteps);
  if (call.shape.num_directions == 2)
    run_bidirectional(call, chunks);
  else
    run_forward(call, chunks);
}

} // namespace cuda
} // namespace lstm_fastkernels
