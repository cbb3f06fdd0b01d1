#include "service/model_spec.h"

#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

absl::Status Wrong(absl::string_view option, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("--model: '", option, "' ", why));
}

absl::Status SetNumber(absl::string_view option, absl::string_view value,
                       std::optional<int32_t>* number) {
  int32_t parsed = 0;
  if (!absl::SimpleAtoi(value, &parsed)) return Wrong(option, "needs a whole number");
  *number = parsed;
  return absl::OkStatus();
}

absl::Status SetOption(absl::string_view option, ModelSpec* spec) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(option, absl::MaxSplits('=', 1));
  const auto& [key, value] = parts;
  if (value.empty()) return Wrong(option, "must be KEY=VALUE");
  if (key == "name") {
    spec->name = std::string(value);
  } else if (key == "device") {
    spec->device = absl::StrReplaceAll(value, {{"+", ","}});
  } else if (key == "dtype") {
    spec->dtype = std::string(value);
  } else if (key == "state-dtype") {
    spec->state_dtype = std::string(value);
  } else if (key == "slots") {
    return SetNumber(option, value, &spec->slots);
  } else if (key == "kv-pages") {
    return SetNumber(option, value, &spec->kv_pages);
  } else {
    return Wrong(option, "has no key of name, device, dtype, state-dtype, slots and kv-pages");
  }
  return absl::OkStatus();
}

// How many of the parts between commas are the folder: as many as name one that is there.
size_t PartsOfFolder(const std::vector<absl::string_view>& parts) {
  std::error_code error;
  for (size_t count = parts.size(); count > 1; --count) {
    const std::string path = absl::StrJoin(parts.begin(), parts.begin() + count, ",");
    if (std::filesystem::is_directory(path, error)) return count;
  }
  return 1;
}

}  // namespace

std::string NameOf(const ModelSpec& spec) {
  if (!spec.name.empty()) return spec.name;
  const auto path = std::filesystem::path(spec.directory).lexically_normal();
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

absl::StatusOr<ModelSpec> ParseModelSpec(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ',');
  const size_t named = PartsOfFolder(parts);
  ModelSpec spec;
  spec.directory = absl::StrJoin(parts.begin(), parts.begin() + named, ",");
  for (size_t i = named; i < parts.size(); ++i) {
    ANABRANCH_RETURN_IF_ERROR(SetOption(parts[i], &spec));
  }
  return spec;
}

}  // namespace anabranch
