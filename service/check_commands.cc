#include "service/check_commands.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "absl/time/clock.h"
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

// A line a second, only where someone may watch.
LoadProgressFn TerminalProgress() {
  if (isatty(STDERR_FILENO) == 0) return nullptr;
  const auto show = [](const LoadProgress& progress) {
    std::fprintf(
        stderr, "%s: %lld of %lld bytes, %lld %%\n", std::string(progress.phase).c_str(),
        static_cast<long long>(progress.done), static_cast<long long>(progress.total),
        static_cast<long long>(100 * progress.done / std::max<int64_t>(progress.total, 1)));
  };
  return EverySecond(show, absl::Now);
}

}  // namespace

int RunCheckModelCommand(const std::string& directory, const std::string& dtype,
                         const std::string& state_dtype, const std::string& device,
                         double tolerance) {
  const auto parsed = ParseDType(dtype);
  if (!parsed.ok()) return CannotRun(parsed.status());
  LoadOptions options;
  options.dtype = *parsed;
  const auto parsed_state = ParseStateDType(state_dtype);
  if (!parsed_state.ok()) return CannotRun(parsed_state.status());
  options.state_dtype = *parsed_state;
  options.device = device;
  options.progress = TerminalProgress();
  const auto report = RunCheckModel(directory, options, tolerance);
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
