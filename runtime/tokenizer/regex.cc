#include "runtime/tokenizer/regex.h"

#include <oniguruma.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/tokenizer/utf8.h"

namespace anabranch::tokenizer {
namespace {

// A search that goes back more often than this is given up. Runs of one class need one step back a
// byte at most, so the part that grows with the text leaves room for every sane pattern.
constexpr unsigned long kBaseRetries = 1'000'000;
constexpr unsigned long kRetriesPerByte = 16;
// Entries of the match stack (about 40 bytes each): one per character of a greedy run.
constexpr unsigned int kMaxStackEntries = 4'000'000;
constexpr size_t kMaxPatternBytes = 64 * 1024;

std::string OnigMessage(int code, OnigErrorInfo* info) {
  OnigUChar buffer[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int length = info == nullptr ? onig_error_code_to_str(buffer, code)
                                     : onig_error_code_to_str(buffer, code, info);
  return std::string(reinterpret_cast<const char*>(buffer), length > 0 ? length : 0);
}

bool InitializeOniguruma() {
  static const bool initialized = [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    return onig_initialize(encodings, 1) == ONIG_NORMAL;
  }();
  return initialized;
}

struct FreeParam {
  void operator()(OnigMatchParam* param) const { onig_free_match_param(param); }
};
struct FreeRegion {
  void operator()(OnigRegion* region) const { onig_region_free(region, /*free_self=*/1); }
};

using MatchParam = std::unique_ptr<OnigMatchParam, FreeParam>;

MatchParam NewMatchParam(size_t text_bytes) {
  MatchParam param(onig_new_match_param());
  if (param == nullptr) return param;
  const unsigned long retries = kBaseRetries + kRetriesPerByte * text_bytes;
  onig_set_retry_limit_in_match_of_match_param(param.get(), retries);
  onig_set_retry_limit_in_search_of_match_param(param.get(), retries);
  onig_set_match_stack_limit_size_of_match_param(param.get(), kMaxStackEntries);
  return param;
}

}  // namespace

void Regex::Free::operator()(re_pattern_buffer* regex) const { onig_free(regex); }

absl::StatusOr<Regex> Regex::Compile(absl::string_view pattern) {
  return CompileAs(pattern, /*literal=*/false);
}

absl::StatusOr<Regex> Regex::Literal(absl::string_view text) {
  return CompileAs(text, /*literal=*/true);
}

absl::StatusOr<Regex> Regex::CompileAs(absl::string_view pattern, bool literal) {
  if (!InitializeOniguruma()) return absl::InternalError("Oniguruma cannot be initialized");
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "pattern of ", pattern.size(), " bytes; at most ", kMaxPatternBytes, " are supported"));
  }
  const auto* begin = reinterpret_cast<const OnigUChar*>(pattern.data());
  OnigErrorInfo info;
  regex_t* regex = nullptr;
  const int code =
      onig_new(&regex, begin, begin + pattern.size(), ONIG_OPTION_NONE, ONIG_ENCODING_UTF8,
               literal ? ONIG_SYNTAX_ASIS : ONIG_SYNTAX_DEFAULT, &info);
  if (code != ONIG_NORMAL) {
    return absl::InvalidArgumentError(
        absl::StrCat("regular expression '", pattern, "': ", OnigMessage(code, &info)));
  }
  return Regex(regex);
}

absl::Status Regex::FindAll(absl::string_view text, std::vector<Range>* matches) const {
  matches->clear();
  const MatchParam param = NewMatchParam(text.size());
  const std::unique_ptr<OnigRegion, FreeRegion> region(onig_region_new());
  if (param == nullptr || region == nullptr) {
    return absl::ResourceExhaustedError("no memory for a regular expression's match");
  }
  const auto* begin = reinterpret_cast<const OnigUChar*>(text.data());
  const auto* end = begin + text.size();
  size_t pos = 0;
  while (pos <= text.size()) {
    const int found = onig_search_with_param(regex_.get(), begin, end, begin + pos, end,
                                             region.get(), ONIG_OPTION_NONE, param.get());
    if (found == ONIG_MISMATCH) break;
    if (found < 0) {
      return absl::InvalidArgumentError(absl::StrCat("the text cannot be split at byte ", pos, ": ",
                                                     OnigMessage(found, nullptr)));
    }
    const Range match{static_cast<size_t>(region->beg[0]), static_cast<size_t>(region->end[0])};
    // An empty match right behind the last match is not one: step over a character instead.
    if (match.begin == match.end && !matches->empty() && matches->back().end == match.end) {
      if (match.end >= text.size()) break;
      pos = match.end;
      NextCodePoint(text, &pos);
      continue;
    }
    matches->push_back(match);
    pos = match.end;
  }
  return absl::OkStatus();
}

}  // namespace anabranch::tokenizer
