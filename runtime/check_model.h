// Compares a model with reference logits that lie beside it, in DIR/golden.safetensors: for each
// pair ids_n / logits_n one full pass, and, if greedy_prompt, greedy_tokens and greedy_logits are
// there, a greedy continuation token by token. What `anabranchd check-model` runs. In bfloat16 the
// reference is DIR/golden_bfloat16.safetensors, where it exists: logits of a pass with the same
// roundings (MODELS.md 1.4). Rounding alone changes many best tokens of a small random model, so
// float32 logits tell little about it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/launch.h"
#include "runtime/load_progress.h"

namespace anabranch {

struct CheckModelRow {
  std::string name;           // n of ids_n
  int64_t length = 0;         // tokens
  double max_abs_error = 0;   // over all logits of all positions; NaN counts as infinite
  double top1_agreement = 0;  // share of positions with the same best token
};

struct CheckModelReport {
  std::vector<CheckModelRow> rows;  // by ascending length
  struct Greedy {
    int64_t tokens = 0;        // in the reference
    int64_t equal_tokens = 0;  // before the first difference
    double max_abs_error = 0;  // over the logits up to there
  };
  std::optional<Greedy> greedy;
  double tolerance = 0;        // of errors in float32
  double top1_agreement = 0;   // over the positions of all rows
  double least_agreement = 0;  // that a bfloat16 model must reach; 0 in float32
  // float32: all errors within the tolerance and all greedy tokens equal. bfloat16: agreement;
  // where rounding changes one token, the errors and greedy tokens after it say nothing.
  bool passed = false;
};

// In bfloat16 the best token is to be that of the reference at this share of positions.
inline constexpr double kLeastBFloat16Agreement = 0.97;

// NOT_FOUND without a golden file, INVALID_ARGUMENT if it does not fit the model, and the errors of
// Model::Load. A model that differs from its reference is a report, not an error.
absl::StatusOr<CheckModelReport> RunCheckModel(const std::string& dir, kernels::DType dtype,
                                               double tolerance, LoadProgressFn progress = nullptr);

// A table for people, with a closing line that says whether the model passed.
std::string FormatCheckReport(const CheckModelReport& report);

}  // namespace anabranch
