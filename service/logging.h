// One line per event, either "key=value" pairs or one JSON object, through spdlog's default logger.
// Never logs prompts, generated text, tokens or message contents.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace anabranch {

using LogValue = std::variant<std::string, int64_t, double, bool>;
using LogFields = std::vector<std::pair<std::string, LogValue>>;

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Sets up the default logger on stderr. `level`: "debug", "info", "warning", "error", "off";
// INVALID_ARGUMENT for another.
absl::Status SetUpLogging(const std::string& level, bool json);

void LogEvent(LogLevel level, absl::string_view event, const LogFields& fields);

// How an event is written; exposed for tests. Values with spaces or quotes are quoted and escaped,
// so that a field cannot forge another.
std::string FormatEvent(absl::string_view event, const LogFields& fields, bool json);

}  // namespace anabranch
