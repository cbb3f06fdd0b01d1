#include "runtime/strict_json.h"

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace anabranch {
namespace {

constexpr int kMaxDepth = 32;

// Found before parsing: the parser would keep a record of every level it is in.
bool IsTooDeep(absl::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string && c == '\\') {
      ++i;
    } else if (c == '"') {
      in_string = !in_string;
    } else if (!in_string && (c == '{' || c == '[')) {
      if (++depth > kMaxDepth) return true;
    } else if (!in_string && (c == '}' || c == ']')) {
      --depth;
    }
  }
  return false;
}

// Watches the parser's events for what it would accept silently.
class StrictnessCheck {
 public:
  // The parser's callback. Returning false drops the value, so nothing deep is ever built.
  bool Accept(nlohmann::json::parse_event_t event, const nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start) {
      keys_.emplace_back();
    } else if (event == Event::object_end) {
      if (!keys_.empty()) keys_.pop_back();
    } else if (event == Event::key && !keys_.empty()) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (!keys_.back().insert(key).second && problem_.empty()) {
        problem_ = absl::StrCat("key '", key, "' occurs twice");
      }
    }
    return problem_.empty();
  }
  const std::string& problem() const { return problem_; }

 private:
  std::vector<std::set<std::string>> keys_;  // of the objects that are open
  std::string problem_;
};

}  // namespace

absl::StatusOr<nlohmann::json> ParseStrictJson(absl::string_view text) {
  if (IsTooDeep(text)) return absl::InvalidArgumentError("JSON: nested too deeply");
  StrictnessCheck check;
  auto json = nlohmann::json::parse(
      text.begin(), text.end(),
      [&check](int, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
        return check.Accept(event, parsed);
      },
      /*allow_exceptions=*/false);
  if (!check.problem().empty()) {
    return absl::InvalidArgumentError(absl::StrCat("JSON: ", check.problem()));
  }
  if (json.is_discarded()) return absl::InvalidArgumentError("not well-formed JSON");
  return json;
}

std::string ReplaceBareFloats(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      out.push_back(c);
      if (c == '\\' && i + 1 < text.size()) out.push_back(text[++i]);
      if (c == '"') in_string = false;
      continue;
    }
    bool replaced = false;
    for (absl::string_view token : {"-Infinity", "Infinity", "NaN"}) {
      if (!absl::StartsWith(text.substr(i), token)) continue;
      absl::StrAppend(&out, "{\"__float__\": \"", token, "\"}");
      i += token.size() - 1;
      replaced = true;
      break;
    }
    if (replaced) continue;
    if (c == '"') in_string = true;
    out.push_back(c);
  }
  return out;
}

}  // namespace anabranch
