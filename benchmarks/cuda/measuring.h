// What the CUDA programs of this folder measure with.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include <cuda_runtime.h>

inline void check(cudaError_t error, const char *file, int line) {
  if (error == cudaSuccess)
    return;
  std::fprintf(stderr, "%s:%d: %s\n", file, line, cudaGetErrorString(error));
  std::exit(1);
}
#define CHECK(call) check((call), __FILE__, __LINE__)

inline double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Nanoseconds of the stream between two events around `work`.
inline double elapsed(cudaStream_t stream, const std::function<void()> &work) {
  static cudaEvent_t events[2] = {};
  for (cudaEvent_t &event : events)
    if (!event)
      CHECK(cudaEventCreate(&event));
  CHECK(cudaEventRecord(events[0], stream));
  work();
  CHECK(cudaEventRecord(events[1], stream));
  CHECK(cudaEventSynchronize(events[1]));
  float milliseconds = 0;
  CHECK(cudaEventElapsedTime(&milliseconds, events[0], events[1]));
  return milliseconds * 1e6;
}
