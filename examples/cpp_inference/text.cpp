#include "text.h"

#include <cstddef>

namespace {

int token_of(char character) {
  if (character == '\n')
    return kNewline;
  return character >= ' ' && character <= '~' ? 1 + character - ' ' : kOther;
}

// Bytes of the first character; where they are no UTF-8, as many as could have begun one. Some lead
// bytes narrow the byte behind them: it would make a longer form than needed, a surrogate or more
// than U+10FFFF.
size_t character_bytes(std::string_view text) {
  const auto byte = [text](size_t k) { return static_cast<unsigned char>(text[k]); };
  const int lead = byte(0);
  const size_t expected = lead < 0xC2 || lead > 0xF4 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  int lowest = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  int highest = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  size_t bytes = 1;
  while (bytes < expected && bytes < text.size() && byte(bytes) >= lowest &&
         byte(bytes) <= highest) {
    ++bytes;
    lowest = 0x80;
    highest = 0xBF;
  }
  return bytes;
}

} // namespace

std::vector<int> encode(std::string_view text) {
  std::vector<int> tokens;
  tokens.reserve(text.size());
  while (!text.empty()) {
    if (text[0] == '\t')
      tokens.insert(tokens.end(), 4, token_of(' '));
    else if (text[0] != '\r')
      tokens.push_back(token_of(text[0]));
    text.remove_prefix(character_bytes(text));
  }
  return tokens;
}

std::string decode(int token) {
  if (token == kOther)
    return "\xEF\xBF\xBD";
  return {token == kNewline ? '\n' : static_cast<char>(' ' + token - 1)};
}
