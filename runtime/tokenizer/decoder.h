// "decoder" of tokenizer.json: turns the contents of tokens back into text. Supported: ByteLevel,
// ByteFallback, Fuse, Strip, Replace, Metaspace and Sequence of them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/tokenizer/json_fields.h"

namespace anabranch::tokenizer {

class Decoder {
 public:
  virtual ~Decoder() = default;

  // Rewrites the tokens of a text; their concatenation is the text, in valid UTF-8.
  virtual void Decode(std::vector<std::string>* tokens) const = 0;
  // What one token contributes, as raw bytes: for streaming. `is_first`: no token is before it.
  virtual std::string TokenBytes(std::string token, bool is_first) const = 0;
};

// Without a decoder (`json` nullptr) the tokens are joined by spaces. INVALID_ARGUMENT names what
// is unsupported.
absl::StatusOr<std::unique_ptr<Decoder>> ParseDecoder(const Json* json);

}  // namespace anabranch::tokenizer
