#include "statestore/prefix_index.h"

#include <xxhash.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"
#include "statestore/byte_coding.h"

namespace anabranch {
namespace {

using Hash = XXH128_canonical_t;
static_assert(sizeof(Hash) == PrefixHasher::kHashBytes);

std::string ToString(const Hash& hash) {
  return std::string(reinterpret_cast<const char*>(hash.digest), sizeof(hash.digest));
}

// One link: 16 bytes of the hash before and 4 of the token.
void Link(const std::string& key, int32_t token, Hash& hash) {
  unsigned char input[sizeof(Hash) + sizeof(uint32_t)];
  std::memcpy(input, hash.digest, sizeof(Hash));
  for (size_t i = 0; i < sizeof(uint32_t); ++i) {
    input[sizeof(Hash) + i] = static_cast<unsigned char>(static_cast<uint32_t>(token) >> (8 * i));
  }
  XXH128_canonicalFromHash(&hash,
                           XXH3_128bits_withSecret(input, sizeof(input), key.data(), key.size()));
}

// Entries passed by Next() before a new Seek: a step is several times cheaper than a seek.
constexpr int kStepsBeforeSeek = 8;

// Moves the cursor to the first key at or after `target`.
void Advance(Cursor& cursor, const std::string& target) {
  for (int steps = 0; steps < kStepsBeforeSeek; ++steps) {
    if (!cursor.Valid() || cursor.key() >= target) return;
    cursor.Next();
  }
  if (cursor.Valid() && cursor.key() < target) cursor.Seek(target);
}

}  // namespace

std::string PrefixHasher::Extend(absl::string_view hash, absl::Span<const int32_t> tokens) const {
  Hash current;
  std::memcpy(current.digest, hash.data(), sizeof(current.digest));
  for (int32_t token : tokens) Link(key_, token, current);
  return ToString(current);
}

std::string PrefixHasher::Chain(absl::Span<const int32_t> tokens) const {
  std::string chain = Empty();
  chain.reserve((tokens.size() + 1) * kHashBytes);
  Hash current;
  std::memcpy(current.digest, chain.data(), sizeof(current.digest));
  for (int32_t token : tokens) {
    Link(key_, token, current);
    chain.append(reinterpret_cast<const char*>(current.digest), sizeof(current.digest));
  }
  return chain;
}

std::string PrefixHasher::Scope(absl::string_view fingerprint,
                                absl::string_view numerics_profile) const {
  ByteWriter writer;
  writer.String(fingerprint);
  writer.String(numerics_profile);
  const std::string bytes = std::move(writer).Take();
  Hash scope;
  XXH128_canonicalFromHash(
      &scope, XXH3_128bits_withSecret(bytes.data(), bytes.size(), key_.data(), key_.size()));
  return ToString(scope);
}

// A skip scan: keys are sorted by falling length, then hash. At each length that exists, it looks
// at the one hash that would match and goes on to the next length.
absl::StatusOr<std::optional<std::string>> FindLongestPrefix(
    const Snapshot& snapshot, absl::string_view scope_key, absl::string_view chain,
    absl::FunctionRef<absl::StatusOr<bool>(int64_t length, const std::string& state)> accept) {
  const int64_t longest = static_cast<int64_t>(chain.size() / PrefixHasher::kHashBytes) - 1;
  const std::unique_ptr<Cursor> cursor = snapshot.NewCursor(Family::kPrefixes, scope_key);
  cursor->Seek(PrefixLengthKey(scope_key, longest, ""));
  while (cursor->Valid()) {
    ANABRANCH_ASSIGN_OR_RETURN(const PrefixEntry entry,
                               ParsePrefixEntryKey(scope_key, cursor->key()));
    const absl::string_view wanted =
        chain.substr(entry.length * PrefixHasher::kHashBytes, PrefixHasher::kHashBytes);
    if (entry.hash < wanted) {
      Advance(*cursor, PrefixLengthKey(scope_key, entry.length, wanted));
    } else if (entry.hash == wanted) {
      ANABRANCH_ASSIGN_OR_RETURN(const bool accepted,
                                 accept(entry.length, std::string(entry.state)));
      if (accepted) return std::optional<std::string>(entry.state);
      cursor->Next();
    } else if (entry.length == 0) {
      break;
    } else {
      Advance(*cursor, PrefixLengthKey(scope_key, entry.length - 1, ""));
    }
  }
  ANABRANCH_RETURN_IF_ERROR(cursor->status());
  return std::optional<std::string>();
}

}  // namespace anabranch
