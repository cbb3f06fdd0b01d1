#include "statestore/page_token.h"

#include <xxhash.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "statestore/byte_coding.h"

namespace anabranch {

constexpr int32_t kDefaultPageSize = 100, kMaxPageSize = 1000;

uint64_t PageTokens::Tag(absl::string_view query, absl::string_view position) const {
  ByteWriter writer;
  writer.String(query);
  writer.String(position);
  const std::string bytes = std::move(writer).Take();
  return XXH3_64bits_withSecret(bytes.data(), bytes.size(), key_.data(), key_.size());
}

std::string PageTokens::Encode(absl::string_view query, absl::string_view position) const {
  return absl::WebSafeBase64Escape(absl::StrCat(BigEndian64(Tag(query, position)), position));
}

absl::StatusOr<std::string> PageTokens::Decode(absl::string_view query,
                                               absl::string_view token) const {
  if (token.empty()) return std::string();
  std::string bytes;
  if (absl::WebSafeBase64Unescape(token, &bytes) && bytes.size() > 8) {
    const std::string position = bytes.substr(8);
    if (FromBigEndian64(absl::string_view(bytes).substr(0, 8)) == Tag(query, position)) {
      return position;
    }
  }
  return absl::InvalidArgumentError(
      "page_token was not given by this listing: use the token of the page before, with the same "
      "filter");
}

absl::StatusOr<size_t> PageSize(const PageRequest& page) {
  if (page.size < 0) {
    return absl::InvalidArgumentError(absl::StrCat("page_size is ", page.size, ", negative"));
  }
  return page.size == 0 ? kDefaultPageSize : std::min(page.size, kMaxPageSize);
}

}  // namespace anabranch
