// `anabranchd check-tokenizer DIR`: does DIR/tokenizer.json give the ids and texts of
// DIR/golden.json? golden.json is a list of {"text", "ids" (with the post-processor's special
// tokens), "ids_plain" (without), "decoded" (of ids, special tokens skipped)}, made with the
// reference implementation.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tokenizer.h"

namespace anabranch {

struct TokenizerMismatch {
  std::string text;
  std::string what;  // "ids", "ids_plain" or "decoded"
  std::string expected, actual;
};

struct TokenizerReport {
  int64_t texts = 0;
  int64_t ids_equal = 0, ids_plain_equal = 0, decoded_equal = 0;
  std::vector<TokenizerMismatch> mismatches;  // the first five

  bool ok() const {
    return ids_equal == texts && ids_plain_equal == texts && decoded_equal == texts;
  }
};

// INVALID_ARGUMENT if a file is malformed or golden.json has no texts; NOT_FOUND if one is missing.
absl::StatusOr<TokenizerReport> CheckTokenizer(const std::string& dir);

// A few lines for people; ends with "OK" or "FAILED".
std::string FormatReport(const TokenizerReport& report);

}  // namespace anabranch
