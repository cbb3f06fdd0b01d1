// Cheap checks of launch parameters, shared by the kernels.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/launch.h"

namespace anabranch::kernels {

// INVALID_ARGUMENT naming `kernel` and what is wrong, unless `ok`.
inline absl::Status Require(bool ok, const char* kernel, const char* what) {
  if (ok) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(kernel, ": ", what));
}

// Row starts ascend from zero and slots are not negative. That slots are distinct is not checked.
inline absl::Status CheckRows(const PackedRows& rows, bool need_slots, const char* kernel) {
  if (rows.num_seqs == 0) return absl::OkStatus();
  if (rows.num_seqs < 0 || rows.row_start == nullptr || (need_slots && rows.slot == nullptr)) {
    return Require(false, kernel, "sequences without row starts or slots");
  }
  if (rows.row_start[0] != 0) return Require(false, kernel, "row_start[0] must be 0");
  for (int32_t i = 0; i < rows.num_seqs; ++i) {
    if (rows.row_start[i + 1] < rows.row_start[i]) {
      return Require(false, kernel, "row_start must ascend");
    }
    if (need_slots && rows.slot[i] < 0) return Require(false, kernel, "negative slot");
  }
  return absl::OkStatus();
}

// Rows of `width` elements that are worth a thread, for kernels of a few operations per element.
inline int64_t RowGrain(int64_t width) { return std::max<int64_t>(1, 8192 / (width + 1)); }

}  // namespace anabranch::kernels
