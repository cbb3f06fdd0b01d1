// Opaque page tokens: where a listing goes on, tied to the listing it came from by a keyed hash, so
// that a token of another tenant, filter or library is refused.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "statestore/state_store.h"

namespace anabranch {

class PageTokens {
 public:
  // `key`: at least 136 random bytes (PrefixHasher::kKeyBytes will do).
  explicit PageTokens(std::string key) : key_(std::move(key)) {}

  // `query` stands for everything that must be the same for the next page.
  std::string Encode(absl::string_view query, absl::string_view position) const;
  // The position; empty for the first page. INVALID_ARGUMENT for any token Encode did not make.
  absl::StatusOr<std::string> Decode(absl::string_view query, absl::string_view token) const;

 private:
  uint64_t Tag(absl::string_view query, absl::string_view position) const;

  const std::string key_;
};

// 0 means 100, more than 1000 means 1000. INVALID_ARGUMENT if negative.
absl::StatusOr<size_t> PageSize(const PageRequest& page);

}  // namespace anabranch
