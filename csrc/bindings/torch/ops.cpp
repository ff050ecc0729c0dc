// The torch ops: check, allocate, call. Built on torch's stable ABI, so that one build serves every
// torch from 2.10 on. Fake kernels stand in lstm_fastkernels/ops.py.
#include "bindings/torch/ops.h"

#include <torch/csrc/stable/library.h>

#include <stdexcept>
#include <string>

#include "lstm_fastkernels/isa.h"

namespace lstm_fastkernels {
namespace {

std::string get_isa() { return std::string(active_isa()); }

void choose_isa(std::string name) {
  with_value_errors([&] { set_isa(name); });
}

// Names separated by spaces, lowest first.
std::string get_supported_isas() {
  std::string names;
  for (const std::string_view isa : supported_isas())
    (names += names.empty() ? "" : " ") += isa;
  return names;
}

// What the gradient of lstm calls, so that a compiled graph raises only when it runs backward.
Tensor no_backward(Tensor, std::vector<int64_t>) {
  throw std::runtime_error("this LSTM is for inference: its compressed weights have no gradient. "
                           "Train the float nn.LSTM "
                           "(dequantize() or to_dense() gives one) and convert it again");
}

} // namespace
} // namespace lstm_fastkernels

STABLE_TORCH_LIBRARY(lstm_fastkernels, m) {
  // `plain` has none of the Python kernels that stand above the other: for callers who know that
  // nobody asks for a derivative, a cast or a trace.
  for (const char *const name : {"lstm", "lstm.plain"})
    m.def((std::string(name) +
           "(Tensor x, Tensor? h0, Tensor? c0, Tensor? lengths, Tensor packed, int[] shape, "
           "bool batch_first, int[]? header=None) -> (Tensor, Tensor, Tensor)")
              .c_str());
  m.def("explain_lstm(Tensor x, Tensor? h0, Tensor? c0, Tensor? lengths, Tensor packed, "
        "int[] shape, bool batch_first, int[]? header=None, bool brief=False) -> str");
  m.def("pack_lstm(Tensor[] tensors, str[] names, int[] shape, str[] precisions, "
        "bool cuda=False) -> (Tensor, int[]?)");
  m.def("unpack_lstm(Tensor packed, int[] shape) -> (Tensor[], str[])");
  m.def("packed_fits(Tensor packed, str hash, Tensor[] tensors, str[] names, int[] shape, "
        "str[] precisions) -> bool");
  m.def("hash_tensors(Tensor[] tensors, str[] names) -> str");
  m.def("quantize_rows(Tensor weight, bool? pair_safe) -> (Tensor, Tensor)");
  m.def("quantize_groups(Tensor weight, int group_size) -> (Tensor, Tensor)");
  m.def("no_backward(Tensor gradient, SymInt[] shape) -> Tensor");
  m.def("cuda_built() -> bool");
  m.def("get_isa() -> str");
  m.def("set_isa(str name) -> ()");
  m.def("supported_isas() -> str");
  m.def("release_memory() -> ()");
}

// For every device: the ops say themselves where they run.
STABLE_TORCH_LIBRARY_IMPL(lstm_fastkernels, CompositeExplicitAutograd, m) {
  m.impl("lstm", TORCH_BOX(&lstm_fastkernels::lstm));
  m.impl("lstm.plain", TORCH_BOX(&lstm_fastkernels::lstm));
  m.impl("explain_lstm", TORCH_BOX(&lstm_fastkernels::explain_lstm));
  m.impl("pack_lstm", TORCH_BOX(&lstm_fastkernels::pack_lstm));
  m.impl("unpack_lstm", TORCH_BOX(&lstm_fastkernels::unpack_lstm));
  m.impl("packed_fits", TORCH_BOX(&lstm_fastkernels::packed_fits));
  m.impl("hash_tensors", TORCH_BOX(&lstm_fastkernels::hash_tensors));
  m.impl("quantize_rows", TORCH_BOX(&lstm_fastkernels::quantize_matrix));
  m.impl("quantize_groups", TORCH_BOX(&lstm_fastkernels::quantize_matrix_groups));
  m.impl("no_backward", TORCH_BOX(&lstm_fastkernels::no_backward));
  m.impl("cuda_built", TORCH_BOX(&lstm_fastkernels::cuda_built));
  m.impl("get_isa", TORCH_BOX(&lstm_fastkernels::get_isa));
  m.impl("set_isa", TORCH_BOX(&lstm_fastkernels::choose_isa));
  m.impl("supported_isas", TORCH_BOX(&lstm_fastkernels::get_supported_isas));
  m.impl("release_memory", TORCH_BOX(&lstm_fastkernels::release_all));
}
