#include "runtime/tokenizer/pattern.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"

namespace anabranch::tokenizer {
namespace {

constexpr size_t kMaxResultBytes = size_t{1} << 30;

}  // namespace

absl::StatusOr<Regex> ParsePattern(const Json& object, absl::string_view component) {
  const Json* pattern = Find(object, "pattern");
  if (pattern == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(component, ": field 'pattern' is missing"));
  }
  const bool is_regex = Find(*pattern, "Regex") != nullptr;
  ANABRANCH_ASSIGN_OR_RETURN(const std::string text,
                             StringField(*pattern, is_regex ? "Regex" : "String", component));
  absl::StatusOr<Regex> regex = is_regex ? Regex::Compile(text) : Regex::Literal(text);
  if (!regex.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(component, ": ", regex.status().message()));
  }
  return regex;
}

Replacement::Replacement(Regex pattern, std::string content)
    : pattern_(std::move(pattern)), content_(std::move(content)) {}

absl::StatusOr<Replacement> Replacement::Parse(const Json& object, absl::string_view component) {
  ANABRANCH_ASSIGN_OR_RETURN(Regex pattern, ParsePattern(object, component));
  ANABRANCH_ASSIGN_OR_RETURN(std::string content, StringField(object, "content", component));
  return Replacement(std::move(pattern), std::move(content));
}

absl::Status Replacement::Apply(std::string* text) const {
  if (text->empty()) return absl::OkStatus();
  std::vector<Range> matches;
  ANABRANCH_RETURN_IF_ERROR(pattern_.FindAll(*text, &matches));
  if (matches.empty()) return absl::OkStatus();
  if (text->size() > kMaxResultBytes ||
      content_.size() > (kMaxResultBytes - text->size()) / matches.size()) {
    return absl::ResourceExhaustedError("replacing makes the text longer than 1 GiB");
  }
  std::string result;
  result.reserve(text->size() + matches.size() * content_.size());
  size_t pos = 0;
  for (const Range& match : matches) {
    result.append(*text, pos, match.begin - pos);
    result.append(content_);
    pos = match.end;
  }
  result.append(*text, pos, std::string::npos);
  *text = std::move(result);
  return absl::OkStatus();
}

}  // namespace anabranch::tokenizer
