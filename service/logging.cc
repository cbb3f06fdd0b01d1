#include "service/logging.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace anabranch {
namespace {

std::atomic<bool> json_lines{false};

nlohmann::ordered_json ToJson(const LogValue& value) {
  return std::visit([](const auto& v) { return nlohmann::ordered_json(v); }, value);
}

// Invalid UTF-8 is replaced: a log line is always valid.
std::string Dump(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

bool IsBare(const std::string& text) {
  return !text.empty() && text.find_first_not_of(
                              "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                              "_-./:+[]") == std::string::npos;
}

}  // namespace

absl::Status SetUpLogging(const std::string& level, bool json) {
  const auto parsed = spdlog::level::from_str(level);
  if (parsed == spdlog::level::off && level != "off") {
    return absl::InvalidArgumentError(
        absl::StrCat("log level '", level, "' is none of debug, info, warning, error, off"));
  }
  json_lines.store(json);
  auto logger = std::make_shared<spdlog::logger>("anabranchd",
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_level(parsed);
  logger->set_pattern(json ? "{\"time\":\"%Y-%m-%dT%H:%M:%S.%e%z\",\"level\":\"%l\",%v}"
                           : "%Y-%m-%dT%H:%M:%S.%e%z level=%l %v");
  spdlog::set_default_logger(std::move(logger));
  return absl::OkStatus();
}

void LogEvent(LogLevel level, absl::string_view event, const LogFields& fields) {
  static constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info,
                                                          spdlog::level::warn, spdlog::level::err};
  const auto spdlog_level = kLevels[static_cast<int>(level)];
  if (!spdlog::should_log(spdlog_level)) return;
  spdlog::log(spdlog_level, "{}", FormatEvent(event, fields, json_lines.load()));
}

std::string FormatEvent(absl::string_view event, const LogFields& fields, bool json) {
  std::string line;
  if (json) {
    nlohmann::ordered_json object = {{"event", std::string(event)}};
    for (const auto& [key, value] : fields) object[key] = ToJson(value);
    line = Dump(object);
    return line.substr(1, line.size() - 2);  // the pattern writes the braces
  }
  line = absl::StrCat("event=", event);
  for (const auto& [key, value] : fields) {
    const std::string* text = std::get_if<std::string>(&value);
    absl::StrAppend(&line, " ", key, "=", text && IsBare(*text) ? *text : Dump(ToJson(value)));
  }
  return line;
}

}  // namespace anabranch
