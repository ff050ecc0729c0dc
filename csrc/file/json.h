// JSON texts from files, read strictly: no duplicate keys, no deep nesting.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace lstm_fastkernels {

// Throws Error with ErrorCode::invalid_file; `name` is what the message calls the text.
nlohmann::json parse_json(std::string_view text, const std::string &name);

// object[key], of a type that a function below wants. `name` is what errors call the object.
const nlohmann::json &member(const nlohmann::json &object, const char *key,
                             const std::string &name);
int64_t integer(const nlohmann::json &object, const char *key, const std::string &name);
bool boolean(const nlohmann::json &object, const char *key, const std::string &name);
std::string text(const nlohmann::json &object, const char *key, const std::string &name);

// An integer that is not negative and fits int64_t.
bool is_size(const nlohmann::json &value);

[[noreturn]] void refuse_file(const std::string &message);

} // namespace lstm_fastkernels
