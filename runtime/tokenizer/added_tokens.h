// "added_tokens" of tokenizer.json: tokens that are found in the text before the model sees it.
// Those with normalized=false are found in the raw text, the others in the normalized text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/normalizer.h"

namespace anabranch::tokenizer {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool single_word = false;  // only where no word character is next to it
  bool lstrip = false;       // swallows the white space before it
  bool rstrip = false;       // and after it
  bool normalized = false;
  bool special = false;
};

// At most 100,000 tokens of 1 to 1024 bytes.
absl::StatusOr<std::vector<AddedToken>> ParseAddedTokens(const Json* json);

// A part of a text: a token, or (token = nullptr) text between tokens.
struct Piece {
  absl::string_view text;
  const AddedToken* token = nullptr;
};

// Leftmost-longest search for a set of tokens. Immutable; any thread may search.
class AddedTokenMatcher {
 public:
  // `patterns[i]` is what `tokens[i]` looks like in the text; empty ones are never found. The
  // tokens outlive the matcher.
  AddedTokenMatcher(const std::vector<const AddedToken*>& tokens,
                    const std::vector<std::string>& patterns);

  // With `parse_special` false the special tokens stay text.
  std::vector<Piece> Split(absl::string_view text, bool parse_special) const;

 private:
  struct Match {
    size_t begin = 0, end = 0;
    const AddedToken* token = nullptr;
  };
  bool FindFrom(absl::string_view text, size_t pos, Match* match) const;
  // False if the match's neighbours forbid it; otherwise extends it over white space.
  static bool Accept(absl::string_view text, size_t previous_end, Match* match);

  bool starts_[256] = {};                          // bytes that begin a pattern
  absl::flat_hash_map<uint64_t, uint32_t> edges_;  // node << 8 | byte -> node; node 0 is the root
  std::vector<const AddedToken*> token_of_node_;
};

}  // namespace anabranch::tokenizer
