// Compares a model with reference logits that lie beside it, in DIR/golden.safetensors: for each
// pair ids_n / logits_n one full pass, and, if greedy_prompt, greedy_tokens and greedy_logits are
// there, a greedy continuation token by token. What `anabranchd check-model` runs.
//
// In bfloat16 the best token is to be that of float32 at nearly all positions. Rounding its weights
// alone makes that impossible for some models (of small random ones most), so where
// DIR/golden_bfloat16.safetensors tells what the reference implementation's own bfloat16 makes of
// the same ids, being as near to float32 as that is enough, too.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/model.h"

namespace anabranch {

struct CheckModelRow {
  std::string name;           // n of ids_n
  int64_t length = 0;         // tokens
  double max_abs_error = 0;   // over all logits of all positions; NaN counts as infinite
  double mean_abs_error = 0;  // likewise
  int64_t agreed = 0;         // positions with the best token of the float32 reference
  // Of the reference implementation's bfloat16, where the folder has it: positions where its best
  // token is that of float32, and where ours is its.
  int64_t reference_agreed = 0, agreed_with_bf16 = 0;
};

enum class CheckModelRule {
  kExact,        // float32: all errors within the tolerance and all greedy tokens equal
  kAgreement,    // bfloat16: kLeastBFloat16Agreement with float32
  kAsReference,  // bfloat16: at most `allowance` positions fewer than the reference's bfloat16
};

struct CheckModelReport {
  std::vector<CheckModelRow> rows;  // by ascending length
  struct Greedy {
    int64_t tokens = 0;        // in the reference
    int64_t equal_tokens = 0;  // before the first difference
    double max_abs_error = 0;  // over the logits up to there
  };
  std::optional<Greedy> greedy;
  CheckModelRow total;  // over all rows
  bool has_bf16_reference = false;
  double tolerance = 0;   // of errors, in float32
  int64_t allowance = 0;  // kAsReference's, in positions: 1 % of them, at least one
  CheckModelRule rule = CheckModelRule::kExact;  // passed by, or failed the last of
  bool passed = false;
};

inline constexpr double kLeastBFloat16Agreement = 0.97;

// NOT_FOUND without a golden file, INVALID_ARGUMENT if it does not fit the model, and the errors of
// Model::Load. A model that differs from its reference is a report, not an error.
absl::StatusOr<CheckModelReport> RunCheckModel(const std::string& dir, const LoadOptions& options,
                                               double tolerance);

// A table for people, with a closing line that says whether the model passed.
std::string FormatCheckReport(const CheckModelReport& report);

}  // namespace anabranch
