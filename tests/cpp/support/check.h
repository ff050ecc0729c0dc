// The whole test framework: TEST registers, CHECK ends a test at its first failure, WITH names the
// sizes and seeds that a failure is printed with.
#pragma once

#include <cstdint>
#include <cstring>
#include <exception>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include "lstm_fastkernels/error.h"

namespace check {

struct Test {
  const char *name;
  void (*run)();
};

struct Failure {
  std::string message;
};

inline std::vector<Test> &tests() {
  static std::vector<Test> all;
  return all;
}

inline std::vector<std::string> &notes() {
  static std::vector<std::string> current;
  return current;
}

inline bool add(const char *name, void (*run)()) {
  tests().push_back({name, run});
  return true;
}

template <class... Parts> std::string text(const Parts &...parts) {
  std::ostringstream out;
  ((out << parts), ...);
  return out.str();
}

class Note {
public:
  template <class... Parts> explicit Note(const Parts &...parts) {
    notes().push_back(text(parts...));
  }
  ~Note() { notes().pop_back(); }
  Note(const Note &) = delete;
  Note &operator=(const Note &) = delete;
};

[[noreturn]] inline void fail(const char *file, int line, const std::string &what) {
  std::string message = text(file, ":", line, ": ", what);
  for (const std::string &note : notes())
    message += "\n    with " + note;
  throw Failure{message};
}

// What went wrong in a test, or empty.
inline std::string run(const Test &test) {
  try {
    test.run();
  } catch (const Failure &failure) {
    return failure.message;
  } catch (const std::exception &error) {
    return std::string("unexpected exception: ") + error.what();
  }
  return "";
}

// Equal bit by bit; all NaNs are alike.
template <class T> bool same_bits(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    if (a != a && b != b)
      return true;
  return std::memcmp(&a, &b, sizeof a) == 0;
}

// Empty where two arrays have the same bits.
template <class T> std::string difference(const std::vector<T> &a, const std::vector<T> &b) {
  if (a.size() != b.size())
    return text("sizes ", a.size(), " and ", b.size());
  for (size_t i = 0; i < a.size(); ++i)
    if (!same_bits(a[i], b[i]))
      return text("at ", i, ": ", +a[i], " and ", +b[i]);
  return "";
}

// check.cpp has them, optimized.
extern template std::string difference(const std::vector<float> &, const std::vector<float> &);
extern template std::string difference(const std::vector<uint8_t> &, const std::vector<uint8_t> &);

// Empty where `run` throws Error with `part` in its message.
template <class Run> std::string missing_refusal(const Run &run, const std::string &part) {
  try {
    run();
  } catch (const lstm_fastkernels::Error &error) {
    if (std::string(error.what()).find(part) != std::string::npos)
      return "";
    return text("says '", error.what(), "', not '", part, "'");
  }
  return text("does not throw '", part, "'");
}

} // namespace check

#define CHECK_JOIN_(a, b) a##b
#define CHECK_JOIN(a, b) CHECK_JOIN_(a, b)

#define TEST(name)                                                                                 \
  void name();                                                                                     \
  const bool CHECK_JOIN(registered_, name) = check::add(#name, name);                              \
  void name()

#define WITH(...) const check::Note CHECK_JOIN(note_, __LINE__)(__VA_ARGS__)

#define CHECK(expression)                                                                          \
  do {                                                                                             \
    if (!(expression))                                                                             \
      check::fail(__FILE__, __LINE__, #expression);                                                \
  } while (false)

#define CHECK_SAME(a, b)                                                                           \
  do {                                                                                             \
    const std::string difference = check::difference(a, b);                                        \
    if (!difference.empty())                                                                       \
      check::fail(__FILE__, __LINE__, #a " has the bits of " #b ": " + difference);                \
  } while (false)

#define CHECK_THROWS(expression, part)                                                             \
  do {                                                                                             \
    const std::string missing = check::missing_refusal([&] { expression; }, part);                 \
    if (!missing.empty())                                                                          \
      check::fail(__FILE__, __LINE__, #expression " " + missing);                                  \
  } while (false)
