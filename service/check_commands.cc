#include "service/check_commands.h"

#include <cstdio>

#include "runtime/check_model.h"
#include "runtime/check_tokenizer.h"
#include "service/config.h"

namespace anabranch {
namespace {

constexpr int kDiffers = 1, kCannotRun = 2;

int CannotRun(const absl::Status& status) {
  std::fprintf(stderr, "anabranchd: %s\n", std::string(status.message()).c_str());
  return kCannotRun;
}

}  // namespace

int RunCheckModelCommand(const std::string& directory, const std::string& dtype, double tolerance) {
  const auto parsed = ParseDType(dtype);
  if (!parsed.ok()) return CannotRun(parsed.status());
  const auto report = RunCheckModel(directory, *parsed, tolerance);
  if (!report.ok()) return CannotRun(report.status());
  std::printf("%s", FormatCheckReport(*report).c_str());
  return report->passed ? 0 : kDiffers;
}

int RunCheckTokenizerCommand(const std::string& directory) {
  const auto report = CheckTokenizer(directory);
  if (!report.ok()) return CannotRun(report.status());
  std::printf("%s", FormatReport(*report).c_str());
  return report->ok() ? 0 : kDiffers;
}

}  // namespace anabranch
