#include "kernels/implementations.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string>

#include "common/fail.h"
#include "lstm_fastkernels/isa.h"

// Each architecture's list, worst first.
#if defined(__x86_64__)
#define LFK_IMPLEMENTATIONS(X) X(scalar) X(avx2) X(avx512vnni) X(amx)
#elif defined(__aarch64__)
#define LFK_IMPLEMENTATIONS(X) X(scalar) X(neon) X(neon_dotprod)
#else
#define LFK_IMPLEMENTATIONS(X) X(scalar)
#endif

namespace lstm_fastkernels {

#define LFK_DECLARE(name)                                                                          \
  namespace name {                                                                                 \
  extern const Implementation kImplementation;                                                     \
  }
LFK_IMPLEMENTATIONS(LFK_DECLARE)

namespace {

#define LFK_ADDRESS(name) &name::kImplementation,
constexpr const Implementation *kAll[] = {LFK_IMPLEMENTATIONS(LFK_ADDRESS)};

using List = std::vector<const Implementation *>;

// Null where there is none.
const Implementation *find(const List &list, std::string_view name) {
  const auto found =
      std::find_if(list.begin(), list.end(), [&](const auto *i) { return i->name == name; });
  return found == list.end() ? nullptr : *found;
}

std::string names(const List &list) {
  std::string all;
  for (const Implementation *implementation : list)
    (all += all.empty() ? "" : ", ") += implementation->name;
  return all;
}

List find_allowed() {
  const List all(std::begin(kAll), std::end(kAll));
  const char *const best = std::getenv("LSTM_FASTKERNELS_ISA");
  const bool capped = best && *best;
  if (capped && !find(all, best))
    fail("LSTM_FASTKERNELS_ISA must be one of: " + names(all) + "; got '" + best + "'");
  List allowed;
  for (const Implementation *implementation : all) {
    if (implementation->runs_here())
      allowed.push_back(implementation);
    if (capped && implementation->name == best)
      break;
  }
  return allowed;
}

const List &allowed() {
  static const List list = find_allowed();
  return list;
}

const Implementation &allowed(std::string_view name) {
  const Implementation *const found = find(allowed(), name);
  if (!found)
    fail("instruction set must be one of: " + names(allowed()) + "; got '" + std::string(name) +
         "'");
  return *found;
}

std::atomic<const Implementation *> chosen{nullptr};

const Implementation &active() {
  const Implementation *const implementation = chosen.load(std::memory_order_relaxed);
  return implementation ? *implementation : *allowed().back();
}

} // namespace

std::vector<std::string_view> supported_isas() {
  std::vector<std::string_view> all;
  for (const Implementation *implementation : allowed())
    all.push_back(implementation->name);
  return all;
}

std::string_view active_isa() { return active().name; }

void set_isa(std::string_view name) { chosen.store(&allowed(name), std::memory_order_relaxed); }

const Kernels &kernels(std::string_view isa) { return allowed(isa).kernels; }

const Kernels &active_kernels() { return active().kernels; }

} // namespace lstm_fastkernels
