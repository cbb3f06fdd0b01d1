#include "runtime/check_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
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

double MaxAbsError(absl::Span<const float> a, absl::Span<const float> b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double error = std::abs(static_cast<double>(a[i]) - b[i]);
    if (!(error <= worst))
      worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
  }
  return worst;
}

int64_t ArgMax(absl::Span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

absl::StatusOr<CheckModelRow> CheckLength(Model& model, const TensorFile& golden,
                                          const std::string& name) {
  const int64_t vocab = model.description().vocab;
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, ReadIds(golden, kIdsPrefix + name));
  const int64_t length = static_cast<int64_t>(ids.size());
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<float> expected,
                             ReadLogits(golden, kLogitsPrefix + name, length, vocab));
  ANABRANCH_ASSIGN_OR_RETURN(SingleSequence sequence, SingleSequence::Create(model, length));
  CheckModelRow row{name, length};
  int64_t agreed = 0;
  for (int64_t begin = 0; begin < length; begin += kChunk) {
    const int64_t rows = std::min(kChunk, length - begin);
    ANABRANCH_ASSIGN_OR_RETURN(const std::vector<float> logits,
                               sequence.Read(absl::MakeSpan(ids).subspan(begin, rows)));
    const auto reference = absl::MakeSpan(expected).subspan(begin * vocab, rows * vocab);
    row.max_abs_error = std::max(row.max_abs_error, MaxAbsError(logits, reference));
    for (int64_t i = 0; i < rows; ++i) {
      agreed += ArgMax(absl::MakeSpan(logits).subspan(i * vocab, vocab)) ==
                ArgMax(reference.subspan(i * vocab, vocab));
    }
  }
  row.top1_agreement = static_cast<double>(agreed) / static_cast<double>(length);
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
  for (int64_t i = 0; i < greedy.tokens; ++i) {
    const auto last = absl::MakeSpan(logits).last(vocab);
    greedy.max_abs_error =
        std::max(greedy.max_abs_error,
                 MaxAbsError(last, absl::MakeSpan(expected).subspan(i * vocab, vocab)));
    const int32_t token = static_cast<int32_t>(ArgMax(last));
    if (token != tokens[i]) break;
    ++greedy.equal_tokens;
    ANABRANCH_ASSIGN_OR_RETURN(logits, sequence.Read({token}));
  }
  return greedy;
}

absl::StatusOr<TensorFile> OpenGolden(const std::string& dir, bool bf16) {
  if (bf16) {
    auto golden = TensorFile::Open(dir + "/golden_bfloat16.safetensors");
    if (!absl::IsNotFound(golden.status())) return golden;
  }
  return TensorFile::Open(dir + "/golden.safetensors");
}

void Judge(bool bf16, CheckModelReport& report) {
  double agreed = 0, positions = 0, worst = 0;
  for (const CheckModelRow& row : report.rows) {
    agreed += row.top1_agreement * static_cast<double>(row.length);
    positions += static_cast<double>(row.length);
    worst = std::max(worst, row.max_abs_error);
  }
  report.top1_agreement = agreed / positions;
  bool exact = worst <= report.tolerance;
  if (report.greedy) {
    exact = exact && report.greedy->equal_tokens == report.greedy->tokens &&
            report.greedy->max_abs_error <= report.tolerance;
  }
  report.passed = bf16 ? report.top1_agreement >= report.least_agreement : exact;
}

}  // namespace

absl::StatusOr<CheckModelReport> RunCheckModel(const std::string& dir, kernels::DType dtype,
                                               double tolerance, LoadProgressFn progress) {
  const bool bf16 = dtype == kernels::DType::kBFloat16;
  ANABRANCH_ASSIGN_OR_RETURN(const TensorFile golden, OpenGolden(dir, bf16));
  LoadOptions options;
  options.dtype = dtype;
  options.progress = std::move(progress);
  ANABRANCH_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, Model::Load(dir, options));
  CheckModelReport report;
  report.tolerance = tolerance;
  report.least_agreement = bf16 ? kLeastBFloat16Agreement : 0;
  for (const auto& [name, tensor] : golden.tensors()) {
    if (!absl::StartsWith(name, kIdsPrefix)) continue;
    ANABRANCH_ASSIGN_OR_RETURN(CheckModelRow row,
                               CheckLength(*model, golden, name.substr(strlen(kIdsPrefix))));
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
  Judge(bf16, report);
  return report;
}

std::string FormatCheckReport(const CheckModelReport& report) {
  std::string out =
      absl::StrFormat("%-10s %8s %15s %16s\n", "ids", "length", "max abs error", "top-1 agreement");
  for (const CheckModelRow& row : report.rows) {
    absl::StrAppendFormat(&out, "%-10s %8d %15.3e %15.2f%%\n", row.name, row.length,
                          row.max_abs_error, 100 * row.top1_agreement);
  }
  if (report.greedy) {
    absl::StrAppendFormat(&out, "%-10s %8d %15.3e %12d equal\n", "greedy", report.greedy->tokens,
                          report.greedy->max_abs_error, report.greedy->equal_tokens);
  }
  const char* verdict = report.passed ? "PASSED" : "FAILED";
  if (report.least_agreement == 0) {
    absl::StrAppendFormat(&out, "%s (tolerance %g)\n", verdict, report.tolerance);
  } else {
    absl::StrAppendFormat(&out, "%s (top-1 agreement %.2f%%, at least %.2f%% expected)\n", verdict,
                          100 * report.top1_agreement, 100 * report.least_agreement);
  }
  return out;
}

}  // namespace anabranch
