#include "runtime/tokenizer/json_fields.h"

#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/strict_json.h"
#include "statestore/base/status_macros.h"

namespace anabranch::tokenizer {
namespace {

absl::Status FieldError(absl::string_view component, const char* name, absl::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrCat(component, ": field '", name, "' must be ", expected));
}

}  // namespace

absl::StatusOr<Json> ParseJson(absl::string_view text, absl::string_view what) {
  absl::StatusOr<Json> json = ParseStrictJson(text);
  if (!json.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is not valid JSON: ", json.status().message()));
  }
  if (!json->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(what, " is not a JSON object"));
  }
  return json;
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return absl::NotFoundError(absl::StrCat("cannot open ", path));
  }
  // Opening a FIFO would wait for a writer.
  const bool regular = std::filesystem::is_regular_file(path, error);
  std::ifstream file;
  if (regular) file.open(path, std::ios::binary | std::ios::ate);
  if (!regular || !file) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a file that can be read"));
  }
  const std::streamoff size = file.tellg();
  if (size < 0 || static_cast<uint64_t>(size) > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is not a file of at most ", max_bytes, " bytes"));
  }
  std::string content(static_cast<size_t>(size), '\0');
  file.seekg(0);
  if (!file.read(content.data(), size)) {
    return absl::DataLossError(absl::StrCat("cannot read ", path));
  }
  return content;
}

const Json* Find(const Json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(name);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

absl::StatusOr<std::string> ComponentType(const Json& object, absl::string_view component) {
  return StringField(object, "type", component);
}

absl::Status Unsupported(absl::string_view component, absl::string_view type) {
  return absl::InvalidArgumentError(absl::StrCat("unsupported ", component, " '", type, "'"));
}

absl::StatusOr<bool> BoolField(const Json& object, const char* name, absl::string_view component,
                               std::optional<bool> fallback) {
  const Json* value = Find(object, name);
  if (value == nullptr && fallback.has_value()) return *fallback;
  if (value == nullptr || !value->is_boolean()) {
    return FieldError(component, name, "true or false");
  }
  return value->get<bool>();
}

absl::StatusOr<std::string> StringField(const Json& object, const char* name,
                                        absl::string_view component,
                                        std::optional<std::string> fallback) {
  const Json* value = Find(object, name);
  if (value == nullptr && fallback.has_value()) return *std::move(fallback);
  if (value == nullptr || !value->is_string()) return FieldError(component, name, "a string");
  return value->get<std::string>();
}

absl::StatusOr<const Json*> ArrayField(const Json& object, const char* name,
                                       absl::string_view component) {
  const Json* value = Find(object, name);
  if (value == nullptr || !value->is_array()) return FieldError(component, name, "an array");
  return value;
}

absl::StatusOr<int32_t> TokenIdValue(const Json& value, absl::string_view what) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > uint64_t{kMaxTokenId}) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " must be an integer in [0, ", kMaxTokenId, "]"));
  }
  return static_cast<int32_t>(value.get<uint64_t>());
}

}  // namespace anabranch::tokenizer
