// page_size and page_token of the List calls, as the library pages.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "service/error_info.h"
#include "service/limits.h"
#include "statestore/state_store.h"

namespace anabranch {

// 0 means the default size; INVALID_ARGUMENT for negative or too large ones.
inline absl::StatusOr<PageRequest> ParsePage(int32_t page_size, const std::string& page_token) {
  if (page_size < 0 || page_size > kMaxPageSize) {
    return InvalidField("page_size", absl::StrCat("must be 0 to ", kMaxPageSize));
  }
  return PageRequest{page_size == 0 ? kDefaultPageSize : page_size, page_token};
}

}  // namespace anabranch
