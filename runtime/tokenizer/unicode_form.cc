#include "runtime/tokenizer/unicode_form.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/tokenizer/utf8.h"

namespace anabranch::tokenizer {
namespace {

constexpr utf8proc_ssize_t kMaxDecomposition = 32;  // the longest one in Unicode has 18

bool IsAscii(const std::string& text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

absl::Status Decompose(const std::string& text, utf8proc_option_t options,
                       std::vector<utf8proc_int32_t>* code_points) {
  utf8proc_int32_t buffer[kMaxDecomposition];
  for (size_t pos = 0; pos < text.size();) {
    int last_boundclass = 0;
    const char32_t c = NextCodePoint(text, &pos);
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(c), buffer, kMaxDecomposition, options, &last_boundclass);
    if (count < 0 || count > kMaxDecomposition) {
      return absl::InvalidArgumentError(
          absl::StrCat("the text cannot be normalized: ", utf8proc_errmsg(count)));
    }
    code_points->insert(code_points->end(), buffer, buffer + count);
  }
  return absl::OkStatus();
}

// Canonical ordering. utf8proc_map's own is quadratic in the length of a run of marks, which a
// hostile text can make as long as it likes.
void SortMarks(std::vector<utf8proc_int32_t>* code_points) {
  const auto mark_class = [](utf8proc_int32_t c) {
    return utf8proc_get_property(c)->combining_class;
  };
  auto run = code_points->begin();
  while (run != code_points->end()) {
    if (mark_class(*run) == 0) {
      ++run;
      continue;
    }
    const auto end = std::find_if(run, code_points->end(),
                                  [&](utf8proc_int32_t c) { return mark_class(c) == 0; });
    std::stable_sort(run, end, [&](utf8proc_int32_t a, utf8proc_int32_t b) {
      return mark_class(a) < mark_class(b);
    });
    run = end;
  }
}

}  // namespace

absl::Status NormalizeUnicode(const UnicodeForm& form, std::string* text) {
  if (IsAscii(*text)) return absl::OkStatus();  // ASCII is the same in all forms
  auto options = static_cast<utf8proc_option_t>(
      UTF8PROC_STABLE | (form.compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
      (form.compatibility ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> code_points;
  code_points.reserve(text->size());
  if (absl::Status status = Decompose(*text, options, &code_points); !status.ok()) return status;
  SortMarks(&code_points);
  if (form.compose) {
    const utf8proc_ssize_t length = utf8proc_normalize_utf32(
        code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()), options);
    if (length < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the text cannot be normalized: ", utf8proc_errmsg(length)));
    }
    code_points.resize(static_cast<size_t>(length));
  }
  text->clear();
  for (const utf8proc_int32_t c : code_points) AppendCodePoint(static_cast<char32_t>(c), text);
  return absl::OkStatus();
}

}  // namespace anabranch::tokenizer
