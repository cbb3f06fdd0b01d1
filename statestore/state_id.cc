#include "statestore/state_id.h"

#include <openssl/sha.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "statestore/byte_coding.h"

namespace anabranch {

// Every field is written with its length, so that no two contents give the same bytes.
std::string StateId(const StateRecord& record) {
  ByteWriter content;
  content.String(kStateIdDomain);
  content.String(record.tenant);
  content.String(record.fingerprint);
  content.String(record.numerics_profile);
  content.Varint(record.parents.size());
  for (const std::string& parent : record.parents) content.String(parent);
  content.Varint(static_cast<uint64_t>(record.operation));
  content.String(record.operation_params);
  content.Varint(record.span_tokens.size());
  for (int32_t token : record.span_tokens) content.Fixed32(static_cast<uint32_t>(token));

  const std::string bytes = std::move(content).Take();
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest);
  return absl::StrCat(
      "st-", absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(digest), 20)));
}

absl::Status CheckStateId(const StateRecord& record) {
  const std::string expected = StateId(record);
  if (record.id == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "record.id \"", record.id, "\" does not follow from the state's content: it is ", expected));
}

}  // namespace anabranch
