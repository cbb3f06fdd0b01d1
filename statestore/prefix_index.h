// The index from token prefixes to states.
//
// The tokens from a state's root are hashed one by one into a chain, so the hash does not depend on
// how the tokens were split into spans, and a child continues its parent's. The chain is keyed with
// random bytes of the library: nobody outside can build collisions. A hash only proposes a state;
// the caller compares the tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "statestore/database.h"

namespace anabranch {

class PrefixHasher {
 public:
  static constexpr size_t kKeyBytes = 192, kHashBytes = 16;

  // `key`: kKeyBytes random bytes.
  explicit PrefixHasher(std::string key) : key_(std::move(key)) {}

  std::string Empty() const { return std::string(kHashBytes, '\0'); }  // of no tokens
  std::string Extend(absl::string_view hash, absl::Span<const int32_t> tokens) const;
  // Hashes of the first 0, 1, .. tokens.size() tokens, kHashBytes each, in one string.
  std::string Chain(absl::Span<const int32_t> tokens) const;
  // What states must share so that one can continue the other's tokens: model and profile.
  std::string Scope(absl::string_view fingerprint, absl::string_view numerics_profile) const;

 private:
  const std::string key_;
};

// Walks the states whose hash is that of a prefix of the tokens, the longest prefix first, until
// `accept` returns true or an error. `chain` is PrefixHasher::Chain of the tokens. The result is
// the id that was accepted.
absl::StatusOr<std::optional<std::string>> FindLongestPrefix(
    const Snapshot& snapshot, absl::string_view scope_key, absl::string_view chain,
    absl::FunctionRef<absl::StatusOr<bool>(int64_t length, const std::string& state)> accept);

}  // namespace anabranch
