#include "runtime/config_reader.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "runtime/strict_json.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr size_t kMaxConfigBytes = 16 << 20;
constexpr size_t kMaxListLength = 100'000;

// A plain number, or one of the spellings of Infinity and NaN. Nothing for other values.
std::optional<double> AsNumber(const nlohmann::json& value) {
  if (value.is_number()) return value.get<double>();
  if (value.is_object() && value.size() == 1 && value.contains("__float__") &&
      value["__float__"].is_string()) {
    const auto& name = value["__float__"].get_ref<const std::string&>();
    if (name == "Infinity") return std::numeric_limits<double>::infinity();
    if (name == "-Infinity") return -std::numeric_limits<double>::infinity();
    if (name == "NaN") return std::numeric_limits<double>::quiet_NaN();
  }
  return std::nullopt;
}

// An integer that fits; JSON writers also spell 4 as 4.0.
std::optional<int64_t> AsInteger(const nlohmann::json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (std::trunc(number) == number && std::abs(number) < 9e15) {
      return static_cast<int64_t>(number);
    }
  }
  return std::nullopt;
}

// A value as it stands in messages: short, whatever a file contains.
std::string Shown(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  constexpr size_t kMaxShown = 60;
  if (text.size() > kMaxShown) text = text.substr(0, kMaxShown) + "...";
  return text;
}

}  // namespace

ConfigReader::ConfigReader(std::shared_ptr<const nlohmann::json> json, std::string file)
    : json_(std::move(json)), file_(std::move(file)) {}

absl::StatusOr<ConfigReader> ConfigReader::Parse(absl::string_view text, absl::string_view file) {
  if (text.size() > kMaxConfigBytes) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": larger than 16 MiB"));
  }
  auto json = ParseStrictJson(ReplaceBareFloats(text));
  if (!json.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", json.status().message()));
  }
  if (!json->is_object()) return absl::InvalidArgumentError(absl::StrCat(file, ": not an object"));
  return ConfigReader(std::make_shared<const nlohmann::json>(*std::move(json)), std::string(file));
}

const nlohmann::json* ConfigReader::Find(absl::string_view key) const {
  const auto found = json_->find(std::string(key));
  return found == json_->end() || found->is_null() ? nullptr : &*found;
}

void ConfigReader::Fail(absl::string_view key, absl::string_view what) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(absl::StrCat(file_, ": ", key, ": ", what));
}

void ConfigReader::Merge(const ConfigReader& part) {
  if (status_.ok()) status_ = part.status_;
}

bool ConfigReader::Has(absl::string_view key) const { return Find(key) != nullptr; }

bool ConfigReader::IsString(absl::string_view key) const {
  const nlohmann::json* value = Find(key);
  return value != nullptr && value->is_string();
}

int64_t ConfigReader::Integer(absl::string_view key, std::optional<int64_t> fallback, int64_t min,
                              int64_t max) {
  const nlohmann::json* value = Find(key);
  std::optional<int64_t> number = fallback;
  if (value != nullptr) number = AsInteger(*value);
  if (number && *number >= min && *number <= max) return *number;
  const std::string shown = value != nullptr ? Shown(*value)
                            : fallback       ? absl::StrCat("the default ", *fallback)
                                             : "nothing";
  Fail(key, absl::StrCat("expected an integer from ", min, " to ", max, ", found ", shown));
  return min;
}

double ConfigReader::Number(absl::string_view key, double fallback, double min, double max) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return fallback;
  const std::optional<double> number = AsNumber(*value);
  if (number && std::isfinite(*number) && *number >= min && *number <= max) return *number;
  Fail(key, absl::StrCat("expected a number from ", min, " to ", max, ", found ", Shown(*value)));
  return fallback;
}

std::vector<double> ConfigReader::Numbers(absl::string_view key, size_t count, double min,
                                          double max) {
  const nlohmann::json* value = Find(key);
  std::vector<double> numbers;
  if (value != nullptr && value->is_array() && value->size() == count) {
    for (const nlohmann::json& item : *value) {
      const std::optional<double> number = AsNumber(item);
      if (number && *number >= min && *number <= max) numbers.push_back(*number);
    }
  }
  if (numbers.size() == count) return numbers;
  Fail(key, absl::StrCat("expected a list of ", count, " numbers from ", min, " to ", max,
                         ", found ", value == nullptr ? "nothing" : Shown(*value)));
  return std::vector<double>(count, min);
}

bool ConfigReader::Bool(absl::string_view key, bool fallback) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  Fail(key, absl::StrCat("expected true or false, found ", Shown(*value)));
  return fallback;
}

std::string ConfigReader::String(absl::string_view key, absl::string_view fallback) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return std::string(fallback);
  if (value->is_string()) return value->get<std::string>();
  Fail(key, absl::StrCat("expected a string, found ", Shown(*value)));
  return std::string(fallback);
}

std::vector<std::string> ConfigReader::Strings(absl::string_view key, bool* found) {
  const nlohmann::json* value = Find(key);
  *found = value != nullptr;
  std::vector<std::string> strings;
  if (value == nullptr) return strings;
  if (!value->is_array() || value->size() > kMaxListLength) {
    Fail(key, absl::StrCat("expected a list of strings, found ", Shown(*value)));
    return strings;
  }
  for (const nlohmann::json& item : *value) {
    if (!item.is_string()) {
      Fail(key, absl::StrCat("expected a list of strings, found ", Shown(item), " in it"));
      return strings;
    }
    strings.push_back(item.get<std::string>());
  }
  return strings;
}

std::vector<int32_t> ConfigReader::TokenIds(absl::string_view key, int64_t limit) {
  std::vector<int32_t> ids;
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return ids;
  const auto add = [&](const nlohmann::json& item) {
    const std::optional<int64_t> id = AsInteger(item);
    if (id && *id >= 0 && *id < limit) {
      ids.push_back(static_cast<int32_t>(*id));
    } else {
      Fail(key, absl::StrCat("expected token ids from 0 to ", limit - 1, ", found ", Shown(item)));
    }
  };
  if (!value->is_array()) {
    add(*value);
  } else if (value->size() > kMaxListLength) {
    Fail(key, "too many token ids");
  } else {
    for (const nlohmann::json& item : *value) add(item);
  }
  return ids;
}

std::vector<int64_t> ConfigReader::Indices(absl::string_view key, int64_t limit, bool* found) {
  const nlohmann::json* value = Find(key);
  *found = value != nullptr;
  std::vector<int64_t> indices;
  if (value == nullptr) return indices;
  bool valid = value->is_array() && static_cast<int64_t>(value->size()) <= limit;
  for (size_t i = 0; valid && i < value->size(); ++i) {
    const std::optional<int64_t> index = AsInteger((*value)[i]);
    valid = index && *index<limit&& * index>(indices.empty() ? -1 : indices.back());
    if (valid) indices.push_back(*index);
  }
  if (valid) return indices;
  Fail(key,
       absl::StrCat("expected ascending indices from 0 to ", limit - 1, ", found ", Shown(*value)));
  return {};
}

std::pair<float, float> ConfigReader::Range(absl::string_view key, float low, float high) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return {low, high};
  if (value->is_array() && value->size() == 2) {
    const auto first = AsNumber((*value)[0]);
    const auto second = AsNumber((*value)[1]);
    if (first && second && std::isfinite(*first) && *first >= 0 && *second >= *first) {
      return {static_cast<float>(*first), static_cast<float>(*second)};
    }
  }
  Fail(key, absl::StrCat("expected [low, high] with 0 <= low <= high, found ", Shown(*value)));
  return {low, high};
}

ConfigReader ConfigReader::Object(absl::string_view key) {
  const nlohmann::json* value = Find(key);
  const bool object = value != nullptr && value->is_object();
  if (value != nullptr && !object) {
    Fail(key, absl::StrCat("expected an object, found ", Shown(*value)));
  }
  auto part = std::make_shared<const nlohmann::json>(object ? *value : nlohmann::json::object());
  return ConfigReader(std::move(part), absl::StrCat(file_, ": ", key));
}

}  // namespace anabranch
