// Turns tokens into text deltas: never splits a UTF-8 character, and holds back text that may be
// the beginning of a stop string. All deltas and the rest together are what Tokenizer::Decode makes
// of the tokens (special ones skipped). One exception: a broken run of byte-fallback tokens gives
// U+FFFD for its broken parts only, where Decode gives one for each byte of the run.
// One object per generation; not thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "runtime/tokenizer.h"

namespace anabranch {

class TextStream {
 public:
  // `tokenizer` outlives the stream. Special tokens give no text. Empty stop strings are ignored.
  TextStream(const Tokenizer& tokenizer, std::vector<std::string> stop_strings);

  // The stop string that is completed first wins, however the text is cut into tokens; of two that
  // are completed by the same byte, the longer one. After it, Push only repeats that it stopped.
  struct Delta {
    std::string text;         // valid UTF-8; may be empty
    bool stopped = false;     // a stop string was completed: its text and all after it is dropped
    std::string stop_string;  // which one
  };
  Delta Push(int32_t token);
  // The rest: held-back text, and U+FFFD for an unfinished character.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  std::vector<std::string> stop_strings_;
  std::string bytes_;  // the beginning of a character, at most 3 bytes
  std::string held_;   // text that may become a stop string
  std::string stop_string_;
  bool is_first_ = true;
  bool stopped_ = false;
};

}  // namespace anabranch
