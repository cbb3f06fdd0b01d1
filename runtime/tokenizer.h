// tokenizer.json of BPE models (byte level, SentencePiece style with byte fallback), executed
// faithfully.
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
#include "runtime/tokenizer/added_tokens.h"

namespace anabranch {

// A part of a text. In a part of the format special tokens are tokens, elsewhere they are text.
struct TextPiece {
  std::string text;
  bool is_format = false;
};

class Tokenizer {
 public:
  // What a model folder adds to tokenizer.json.
  struct Extras {
    std::vector<tokenizer::AddedToken> added_tokens;  // taken if id and content are both unused
    std::vector<std::string> control_tokens;          // special, if the vocabulary has them
  };
  // INVALID_ARGUMENT names the part of the file that is malformed or not supported. NOT_FOUND: no
  // such file.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(absl::string_view json) {
    return FromJson(json, Extras());
  }
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(absl::string_view json,
                                                             const Extras& extras);
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromFile(const std::string& path) {
    return FromFile(path, Extras());
  }
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromFile(const std::string& path,
                                                             const Extras& extras);
  virtual ~Tokenizer() = default;

  struct EncodeOptions {
    bool add_special_tokens = false;   // run the post-processor (BOS, EOS)
    bool parse_special_tokens = true;  // false: "<|end|>" in the text is plain text, never a token
  };
  // INVALID_ARGUMENT if `text` is not valid UTF-8 (names the byte offset).
  virtual absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                                      const EncodeOptions& options) const = 0;
  // As Encode of all pieces in one, with special tokens only from those of the format.
  // `at_input_start`: nothing comes before them.
  virtual absl::StatusOr<std::vector<int32_t>> EncodePieces(absl::Span<const TextPiece> pieces,
                                                            bool at_input_start) const = 0;
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
