// tokenizer.json of the byte-level BPE families, executed faithfully (MODELS.md section 7).
// Immutable after load; all members may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace anabranch {

class Tokenizer {
 public:
  // INVALID_ARGUMENT names the part of the file that is malformed or not supported.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(absl::string_view json);
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromFile(const std::string& path);
  virtual ~Tokenizer() = default;

  struct EncodeOptions {
    bool add_special_tokens = false;   // run the post-processor (BOS, EOS)
    bool parse_special_tokens = true;  // false: "<|end|>" in the text is plain text, never a token
  };
  // INVALID_ARGUMENT if `text` is not valid UTF-8 (names the byte offset).
  virtual absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                                      const EncodeOptions& options) const = 0;
  // Invalid byte sequences become U+FFFD; ids outside the vocabulary are skipped.
  virtual std::string Decode(absl::Span<const int32_t> ids, bool skip_special) const = 0;
  // The raw bytes one token stands for (not necessarily valid UTF-8): for streaming.
  virtual std::string TokenBytes(int32_t id) const = 0;
  // The same for the first token of a text: decoders of the SentencePiece kind drop its leading
  // space.
  virtual std::string FirstTokenBytes(int32_t id) const { return TokenBytes(id); }

  virtual std::optional<int32_t> TokenId(absl::string_view token) const = 0;  // exact content
  virtual bool IsSpecial(int32_t id) const = 0;
  virtual int32_t vocab_size() const = 0;  // highest id + 1, added tokens included
};

}  // namespace anabranch
