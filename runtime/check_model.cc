#include "runtime/check_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/float_convert.h"
#include "runtime/model.h"
#include "runtime/single_sequence.h"
#include "runtime/tensor_file.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr char kIdsPrefix[] = "ids_";
constexpr char kLogitsPrefix[] = "logits_";
constexpr int64_t kChunk = 256;

absl::StatusOr<std::vector<int32_t>> ReadIds(const TensorFile& golden, const std::string& name) {
  const TensorView* tensor = golden.Find(name);
  if (tensor == nullptr || tensor->shape.size() != 1 || tensor->shape[0] == 0 ||
      (tensor->dtype != TensorDType::kI32 && tensor->dtype != TensorDType::kI64)) {
    return absl::InvalidArgumentError(
        absl::StrCat("golden.safetensors: '", name, "' is not a list of I32 or I64 ids"));
  }
  std::vector<int32_t> ids(tensor->shape[0]);
  for (size_t i = 0; i < ids.size(); ++i) {
    int64_t id = 0;
    const size_t width = TensorDTypeBytes(tensor->dtype);
    std::memcpy(&id, tensor->bytes.data() + i * width, width);
    if (id < 0 || id > std::numeric_limits<int32_t>::max()) {
      return absl::InvalidArgumentError(
          absl::StrCat("golden.safetensors: '", name, "' has an id outside [0, 2^31)"));
    }
    ids[i] = static_cast<int32_t>(id);
  }
  return ids;
}

absl::StatusOr<std::vector<float>> ReadLogits(const TensorFile& golden, const std::string& name,
                                              int64_t rows, int64_t vocab) {
  const TensorView* tensor = golden.Find(name);
  const std::vector<int64_t> shape = {rows, vocab};
  if (tensor == nullptr || tensor->shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat("golden.safetensors: '", name, "' of shape ",
                                                   ShapeString(shape), " is expected"));
  }
  std::vector<float> values(rows * vocab);
  ANABRANCH_RETURN_IF_ERROR(ToFloats(*tensor, values.data()));
  return values;
}

// Of many logits: the largest and the mean error; NaN counts as infinite.
struct Errors {
  double worst = 0, sum = 0;

  void Add(absl::Span<const float> a, absl::Span<const float> b) {
    for (size_t i = 0; i < a.size(); ++i) {
      double error = std::abs(static_cast<double>(a[i]) - b[i]);
      if (std::isnan(error)) error = std::numeric_limits<double>::infinity();
      worst = std::max(worst, error);
      sum += error;
    }
  }
};

int64_t ArgMax(absl::Span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

absl::StatusOr<CheckModelRow> CheckLength(Model& model, const TensorFile& golden,
                                          const TensorFile* bf16, const std::string& name) {
  const int64_t vocab = model.description().vocab;
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, ReadIds(golden, kIdsPrefix + name));
  const int64_t length = static_cast<int64_t>(ids.size());
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<float> expected,
                             ReadLogits(golden, kLogitsPrefix + name, length, vocab));
  std::vector<float> rounded;
  if (bf16 != nullptr) {
    ANABRANCH_ASSIGN_OR_RETURN(rounded, ReadLogits(*bf16, kLogitsPrefix + name, length, vocab));
  }
  ANABRANCH_ASSIGN_OR_RETURN(SingleSequence sequence, SingleSequence::Create(model, length));
  CheckModelRow row{name, length};
  Errors errors;
  for (int64_t begin = 0; begin < length; begin += kChunk) {
    const int64_t rows = std::min(kChunk, length - begin);
    ANABRANCH_ASSIGN_OR_RETURN(const std::vector<float> logits,
                               sequence.Read(absl::MakeSpan(ids).subspan(begin, rows)));
    errors.Add(logits, absl::MakeSpan(expected).subspan(begin * vocab, rows * vocab));
    for (int64_t i = 0; i < rows; ++i) {
      const auto best = [&](const std::vector<float>& all, int64_t at) {
        return ArgMax(absl::MakeSpan(all).subspan(at * vocab, vocab));
      };
      const int64_t ours = best(logits, i), reference = best(expected, begin + i);
      row.agreed += ours == reference;
      if (bf16 == nullptr) continue;
      row.reference_agreed += best(rounded, begin + i) == reference;
      row.agreed_with_bf16 += best(rounded, begin + i) == ours;
    }
  }
  row.max_abs_error = errors.worst;
  row.mean_abs_error = errors.sum / static_cast<double>(length * vocab);
  return row;
}

absl::StatusOr<CheckModelReport::Greedy> CheckGreedy(Model& model, const TensorFile& golden) {
  const int64_t vocab = model.description().vocab;
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<int32_t> prompt, ReadIds(golden, "greedy_prompt"));
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, ReadIds(golden, "greedy_tokens"));
  CheckModelReport::Greedy greedy;
  greedy.tokens = static_cast<int64_t>(tokens.size());
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<float> expected,
                             ReadLogits(golden, "greedy_logits", greedy.tokens, vocab));
  ANABRANCH_ASSIGN_OR_RETURN(
      SingleSequence sequence,
      SingleSequence::Create(model, static_cast<int64_t>(prompt.size() + tokens.size())));
  ANABRANCH_ASSIGN_OR_RETURN(std::vector<float> logits, sequence.Read(prompt));
  Errors errors;
  for (int64_t i = 0; i < greedy.tokens; ++i) {
    const auto last = absl::MakeSpan(logits).last(vocab);
    errors.Add(last, absl::MakeSpan(expected).subspan(i * vocab, vocab));
    const int32_t token = static_cast<int32_t>(ArgMax(last));
    if (token != tokens[i]) break;
    ++greedy.equal_tokens;
    ANABRANCH_ASSIGN_OR_RETURN(logits, sequence.Read({token}));
  }
  greedy.max_abs_error = errors.worst;
  return greedy;
}

CheckModelRow Total(const std::vector<CheckModelRow>& rows) {
  CheckModelRow total{"all"};
  for (const CheckModelRow& row : rows) {
    total.length += row.length;
    total.max_abs_error = std::max(total.max_abs_error, row.max_abs_error);
    total.mean_abs_error += row.mean_abs_error * static_cast<double>(row.length);
    total.agreed += row.agreed;
    total.reference_agreed += row.reference_agreed;
    total.agreed_with_bf16 += row.agreed_with_bf16;
  }
  total.mean_abs_error /= static_cast<double>(total.length);
  return total;
}

void JudgeExact(CheckModelReport& report) {
  report.passed = report.total.max_abs_error <= report.tolerance;
  if (report.greedy) {
    report.passed = report.passed && report.greedy->equal_tokens == report.greedy->tokens &&
                    report.greedy->max_abs_error <= report.tolerance;
  }
}

// Where rounding changes one token, the errors and greedy tokens after it say nothing.
void JudgeBFloat16(CheckModelReport& report) {
  const CheckModelRow& total = report.total;
  report.allowance = std::max<int64_t>(1, total.length / 100);
  report.rule = CheckModelRule::kAgreement;
  report.passed = static_cast<double>(total.agreed) >=
                  kLeastBFloat16Agreement * static_cast<double>(total.length);
  if (report.passed || !report.has_bf16_reference) return;
  report.rule = CheckModelRule::kAsReference;
  report.passed = total.agreed >= total.reference_agreed - report.allowance;
}

}  // namespace

absl::StatusOr<CheckModelReport> RunCheckModel(const std::string& dir, const LoadOptions& options,
                                               double tolerance) {
  const bool bf16 = options.dtype == kernels::DType::kBFloat16;
  ANABRANCH_ASSIGN_OR_RETURN(const TensorFile golden,
                             TensorFile::Open(dir + "/golden.safetensors"));
  std::optional<TensorFile> rounded;
  if (bf16) {
    auto opened = TensorFile::Open(dir + "/golden_bfloat16.safetensors");
    if (!opened.ok() && !absl::IsNotFound(opened.status())) return opened.status();
    if (opened.ok()) rounded = *std::move(opened);
  }
  ANABRANCH_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, Model::Load(dir, options));
  CheckModelReport report;
  report.tolerance = tolerance;
  report.has_bf16_reference = rounded.has_value();
  for (const auto& [name, tensor] : golden.tensors()) {
    if (!absl::StartsWith(name, kIdsPrefix)) continue;
    ANABRANCH_ASSIGN_OR_RETURN(CheckModelRow row,
                               CheckLength(*model, golden, rounded ? &*rounded : nullptr,
                                           name.substr(strlen(kIdsPrefix))));
    report.rows.push_back(std::move(row));
  }
  if (report.rows.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(dir, "/golden.safetensors: no tensor ids_n to check"));
  }
  std::sort(report.rows.begin(), report.rows.end(),
            [](const CheckModelRow& a, const CheckModelRow& b) {
              return std::pair(a.length, a.name) < std::pair(b.length, b.name);
            });
  if (golden.Find("greedy_prompt") != nullptr) {
    ANABRANCH_ASSIGN_OR_RETURN(report.greedy, CheckGreedy(*model, golden));
  }
  report.total = Total(report.rows);
  bf16 ? JudgeBFloat16(report) : JudgeExact(report);
  return report;
}

std::string FormatCheckReport(const CheckModelReport& report) {
  const auto percent = [](int64_t part, int64_t of) {
    return absl::StrFormat("%.2f%%", 100 * static_cast<double>(part) / static_cast<double>(of));
  };
  std::string out = absl::StrFormat("%-10s %8s %15s %15s %16s", "ids", "length", "max abs error",
                                    "mean abs error", "top-1 agreement");
  if (report.has_bf16_reference) {
    absl::StrAppendFormat(&out, " %18s %18s", "reference's bf16", "ours with its bf16");
  }
  const auto append = [&](const CheckModelRow& row) {
    absl::StrAppendFormat(&out, "\n%-10s %8d %15.3e %15.3e %16s", row.name, row.length,
                          row.max_abs_error, row.mean_abs_error, percent(row.agreed, row.length));
    if (!report.has_bf16_reference) return;
    absl::StrAppendFormat(&out, " %18s %18s", percent(row.reference_agreed, row.length),
                          percent(row.agreed_with_bf16, row.length));
  };
  for (const CheckModelRow& row : report.rows) append(row);
  append(report.total);
  if (report.greedy) {
    absl::StrAppendFormat(&out, "\n%-10s %8d %15.3e %26d equal", "greedy", report.greedy->tokens,
                          report.greedy->max_abs_error, report.greedy->equal_tokens);
  }
  const CheckModelRow& total = report.total;
  absl::StrAppend(&out, report.passed ? "\nPASSED" : "\nFAILED");
  if (report.rule == CheckModelRule::kExact) {
    absl::StrAppendFormat(&out, " (tolerance %g)\n", report.tolerance);
    return out;
  }
  absl::StrAppendFormat(&out, " (top-1 agreement with float32 %s; rule: at least %.0f%%",
                        percent(total.agreed, total.length), 100 * kLeastBFloat16Agreement);
  if (report.rule == CheckModelRule::kAsReference) {
    absl::StrAppendFormat(&out,
                          ", or at most %d of %d positions fewer than the reference "
                          "implementation's own bfloat16, which reaches %s",
                          report.allowance, total.length,
                          percent(total.reference_agreed, total.length));
  }
  absl::StrAppend(&out, ")\n");
  return out;
}

}  // namespace anabranch
