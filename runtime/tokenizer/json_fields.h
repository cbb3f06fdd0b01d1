// Reading typed fields of tokenizer.json's objects. Errors are INVALID_ARGUMENT and name the field
// and the component it belongs to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace anabranch::tokenizer {

using Json = nlohmann::json;

constexpr int32_t kMaxTokenId = 4'000'000;

// Parses without exceptions, as ParseStrictJson. `what` names the text in the error.
absl::StatusOr<Json> ParseJson(absl::string_view text, absl::string_view what);

// The whole file. NOT_FOUND if there is none; INVALID_ARGUMENT if it cannot be read or is longer
// than `max_bytes`.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes);

// The member, or nullptr if it is absent or null. `object` may be of any type.
const Json* Find(const Json& object, const char* name);

// The component's "type". `component` says which one, e.g. "normalizer".
absl::StatusOr<std::string> ComponentType(const Json& object, absl::string_view component);
absl::Status Unsupported(absl::string_view component, absl::string_view type);

// With a fallback: what an absent or null field means. Without one the field is required.
absl::StatusOr<bool> BoolField(const Json& object, const char* name, absl::string_view component,
                               std::optional<bool> fallback = std::nullopt);
absl::StatusOr<std::string> StringField(const Json& object, const char* name,
                                        absl::string_view component,
                                        std::optional<std::string> fallback = std::nullopt);
// An array of objects.
absl::StatusOr<const Json*> ArrayField(const Json& object, const char* name,
                                       absl::string_view component);
// A token id in [0, kMaxTokenId]. `what` names it in the error.
absl::StatusOr<int32_t> TokenIdValue(const Json& value, absl::string_view what);

}  // namespace anabranch::tokenizer
