// ANABRANCH_RETURN_IF_ERROR(expr): returns expr's absl::Status from the enclosing function unless
// it is OK. ANABRANCH_ASSIGN_OR_RETURN(lhs, expr): assigns the value of an absl::StatusOr, or
// returns its status. Abseil's own macros are newer than the releases that distributions ship.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define ANABRANCH_RETURN_IF_ERROR(expr)                  \
  do {                                                   \
    absl::Status anabranch_status = (expr);              \
    if (!anabranch_status.ok()) return anabranch_status; \
  } while (false)

#define ANABRANCH_ASSIGN_OR_RETURN(lhs, expr) \
  ANABRANCH_ASSIGN_OR_RETURN_IMPL(ANABRANCH_CONCAT(anabranch_or_, __LINE__), lhs, expr)

// NOLINTBEGIN(bugprone-macro-parentheses): both are declared names
#define ANABRANCH_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                                    \
  if (!tmp.ok()) return tmp.status();                   \
  lhs = *std::move(tmp)
// NOLINTEND(bugprone-macro-parentheses)

#define ANABRANCH_CONCAT(a, b) ANABRANCH_CONCAT_IMPL(a, b)
#define ANABRANCH_CONCAT_IMPL(a, b) a##b
