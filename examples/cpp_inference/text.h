// Text as tokens and back, as encode and decode in examples/char_lm.py.
#pragma once

#include <string>
#include <string_view>
#include <vector>

// Newline, the 95 printable characters of ASCII, and one for every other character.
constexpr int kVocabularySize = 97;
constexpr int kNewline = 0;
constexpr int kOther = kVocabularySize - 1;

// Of UTF-8. A sequence that is none is one character, as Python's errors="replace" has it.
std::vector<int> encode(std::string_view text);

// As UTF-8, U+FFFD for kOther.
std::string decode(int token);
