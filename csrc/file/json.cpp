#include "file/json.h"

#include <cstdint>
#include <limits>
#include <set>
#include <vector>

#include "lstm_fastkernels/error.h"

namespace lstm_fastkernels {
namespace {

using nlohmann::json;

constexpr int kDeepest = 8;

[[noreturn]] void refuse_member(const std::string &name, const char *key, const char *expected) {
  refuse_file(name + ": '" + key + "' must be " + expected);
}

} // namespace

void refuse_file(const std::string &message) { throw Error(ErrorCode::invalid_file, message); }

json parse_json(std::string_view text, const std::string &name) {
  std::vector<std::set<std::string>> keys; // of each object that is open
  const auto check = [&](int depth, json::parse_event_t event, json &parsed) {
    if (depth > kDeepest)
      refuse_file(name + " is nested too deeply");
    if (event == json::parse_event_t::object_start)
      keys.emplace_back();
    else if (event == json::parse_event_t::object_end)
      keys.pop_back();
    else if (event == json::parse_event_t::key &&
             !keys.back().insert(parsed.get<std::string>()).second)
      refuse_file(name + " has the key '" + parsed.get<std::string>() + "' twice");
    return true;
  };
  if (text.find('\0') != text.npos) // the parser would take it for the end
    refuse_file(name + " is not JSON: it has a zero byte");
  try {
    return json::parse(text, check);
  } catch (const json::parse_error &error) {
    // what() quotes the text, which may be anything.
    refuse_file(name + " is not JSON from byte " + std::to_string(error.byte) + " on");
  } catch (const json::out_of_range &) {
    refuse_file(name + " has a number that is too large");
  }
}

const json &member(const json &object, const char *key, const std::string &name) {
  if (!object.is_object())
    refuse_file(name + " must be an object");
  const auto found = object.find(key);
  if (found == object.end())
    refuse_file(name + ": '" + key + "' is missing");
  return *found;
}

bool is_size(const json &value) {
  return value.is_number_unsigned() &&
         value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
}

int64_t integer(const json &object, const char *key, const std::string &name) {
  const json &value = member(object, key, name);
  if (!is_size(value))
    refuse_member(name, key, "an integer that is not negative");
  return value.get<int64_t>();
}

bool boolean(const json &object, const char *key, const std::string &name) {
  const json &value = member(object, key, name);
  if (!value.is_boolean())
    refuse_member(name, key, "true or false");
  return value.get<bool>();
}

std::string text(const json &object, const char *key, const std::string &name) {
  const json &value = member(object, key, name);
  if (!value.is_string())
    refuse_member(name, key, "a string");
  return value.get<std::string>();
}

} // namespace lstm_fastkernels
