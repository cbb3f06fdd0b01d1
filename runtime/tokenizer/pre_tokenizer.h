// "pre_tokenizer" of tokenizer.json: cuts a normalized piece of text into the words that the model
// encodes one by one. Supported: ByteLevel, Split, Digits, Punctuation, Metaspace and Sequence.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/regex.h"

namespace anabranch::tokenizer {

struct Words {
  std::string text;
  std::vector<Range> ranges;    // non-empty, in order, inside `text`
  bool at_input_start = false;  // `text` begins where the whole input begins
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Cuts each word further; may rewrite the text. INVALID_ARGUMENT if a pattern runs away.
  virtual absl::Status Apply(Words* words) const = 0;
};

// nullptr if `json` is nullptr: a piece is one word. INVALID_ARGUMENT names what is unsupported.
absl::StatusOr<std::unique_ptr<PreTokenizer>> ParsePreTokenizer(const Json* json);

}  // namespace anabranch::tokenizer
