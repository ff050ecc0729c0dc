#include "on_device.h"

#include <cstring>
#include <new>
#include <utility>

#include "common/schedule.h"
#include "cuda/host/device_stack.h"
#include "forced.h"

namespace lstm_fastkernels {
namespace {

constexpr std::align_val_t kAlignment{256};

std::vector<uint8_t> pack_for_device(const SourceStack &stack) {
  const HeldStack held = stack.held();
  const auto layers = held.views();
  const cuda::PackPlan plan(stack.shape, layers.data());
  std::vector<uint8_t> packed(plan.bytes());
  plan.write(packed.data(), packed.size());
  return packed;
}

} // namespace

DeviceMemory::DeviceMemory(size_t bytes)
    : bytes_(static_cast<uint8_t *>(::operator new[](bytes, kAlignment))) {
  std::memset(bytes_.get(), 0xcd, bytes);
}

void DeviceMemory::Delete::operator()(uint8_t *p) const { ::operator delete[](p, kAlignment); }

StackOnDevice::StackOnDevice(const SourceStack &stack)
    : StackOnDevice(stack.shape, pack_for_device(stack)) {}

StackOnDevice::StackOnDevice(const LstmShape &shape, std::vector<uint8_t> packed)
    : packed_(std::move(packed)), device_(packed_.size()),
      view_(packed_.data(), cuda::header_bytes(shape), device_.data(), packed_.size()) {
  std::memcpy(device_.data(), packed_.data(), packed_.size());
}

void StackOnDevice::forward(const LstmArguments &arguments) const {
  cuda::Queue queue;
  queue.workspace_bytes = cuda::workspace_bytes(view(), arguments);
  const DeviceMemory workspace(queue.workspace_bytes);
  queue.workspace = workspace.data();
  cuda::lstm_forward(view(), arguments, queue);
}

void StackOnDevice::forward(const LstmArguments &arguments, cuda::Plan plan) const {
  const cuda::PackedStack &stack = view().packed();
  const Schedule schedule(arguments);
  plan.layers.resize(static_cast<size_t>(stack.shape.num_layers));
  for (cuda::Choice &choice : plan.layers)
    if (choice.persistent && choice.shape.rows == 0)
      choice.shape = of_rows(choice.shape, arguments.batch_size);
  cuda::Queue queue;
  queue.workspace_bytes =
      static_cast<size_t>(cuda::workspace_of(stack, arguments, schedule, plan.chunk_rows));
  const DeviceMemory workspace(queue.workspace_bytes);
  queue.workspace = workspace.data();
  cuda::run(stack, arguments, schedule, plan, queue);
}

Result forward(const StackOnDevice &stack, const Sequence &sequence,
               const std::vector<int64_t> &lengths) {
  Result result;
  LstmArguments a = arguments_for(sequence, result);
  if (!lengths.empty())
    a.lengths = lengths.data();
  stack.forward(a);
  return result;
}

Result forward(const StackOnDevice &stack, const Sequence &sequence, cuda::Plan plan, int64_t steps,
               const std::vector<int64_t> &lengths) {
  plan.chunk_rows = steps * sequence.B;
  Result result;
  LstmArguments a = arguments_for(sequence, result);
  if (!lengths.empty())
    a.lengths = lengths.data();
  stack.forward(a, plan);
  return result;
}

} // namespace lstm_fastkernels
