#include "runtime/check_tokenizer.h"

#include <memory>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/tokenizer/json_fields.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

using tokenizer::Json;

constexpr size_t kMaxGoldenBytes = 256 << 20;
constexpr size_t kMaxMismatches = 5;

struct GoldenText {
  std::string text, decoded;
  std::vector<int32_t> ids, ids_plain;
};

absl::StatusOr<std::vector<int32_t>> IdsField(const Json& entry, const char* name) {
  ANABRANCH_ASSIGN_OR_RETURN(const Json* values, tokenizer::ArrayField(entry, name, "golden.json"));
  std::vector<int32_t> ids;
  for (const Json& value : *values) {
    ANABRANCH_ASSIGN_OR_RETURN(const int32_t id,
                               tokenizer::TokenIdValue(value, absl::StrCat("golden.json: ", name)));
    ids.push_back(id);
  }
  return ids;
}

absl::StatusOr<GoldenText> ParseGoldenText(const Json& entry) {
  GoldenText golden;
  ANABRANCH_ASSIGN_OR_RETURN(golden.text, tokenizer::StringField(entry, "text", "golden.json"));
  ANABRANCH_ASSIGN_OR_RETURN(golden.decoded,
                             tokenizer::StringField(entry, "decoded", "golden.json"));
  ANABRANCH_ASSIGN_OR_RETURN(golden.ids, IdsField(entry, "ids"));
  ANABRANCH_ASSIGN_OR_RETURN(golden.ids_plain, IdsField(entry, "ids_plain"));
  return golden;
}

class Comparison {
 public:
  explicit Comparison(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void Add(const GoldenText& golden) {
    ++report_.texts;
    report_.ids_equal += CompareIds(golden, /*special=*/true);
    report_.ids_plain_equal += CompareIds(golden, /*special=*/false);
    report_.decoded_equal += Expect(golden, "decoded", golden.decoded,
                                    tokenizer_.Decode(golden.ids, /*skip_special=*/true));
  }
  TokenizerReport TakeReport() { return std::move(report_); }

 private:
  bool CompareIds(const GoldenText& golden, bool special) {
    Tokenizer::EncodeOptions options;
    options.add_special_tokens = special;
    const auto ids = tokenizer_.Encode(golden.text, options);
    return Expect(golden, special ? "ids" : "ids_plain",
                  absl::StrJoin(special ? golden.ids : golden.ids_plain, " "),
                  ids.ok() ? absl::StrJoin(*ids, " ") : ids.status().ToString());
  }

  bool Expect(const GoldenText& golden, const char* what, const std::string& expected,
              const std::string& actual) {
    if (expected == actual) return true;
    if (report_.mismatches.size() < kMaxMismatches) {
      report_.mismatches.push_back({golden.text, what, expected, actual});
    }
    return false;
  }

  const Tokenizer& tokenizer_;
  TokenizerReport report_;
};

}  // namespace

absl::StatusOr<TokenizerReport> CheckTokenizer(const std::string& dir) {
  ANABRANCH_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                             Tokenizer::FromFile(absl::StrCat(dir, "/tokenizer.json")));
  ANABRANCH_ASSIGN_OR_RETURN(
      const std::string text,
      tokenizer::ReadSmallFile(absl::StrCat(dir, "/golden.json"), kMaxGoldenBytes));
  const Json golden = Json::parse(text, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!golden.is_array() || golden.empty()) {
    return absl::InvalidArgumentError("golden.json must be a non-empty list of texts");
  }
  Comparison comparison(*tokenizer);
  for (const Json& entry : golden) {
    ANABRANCH_ASSIGN_OR_RETURN(const GoldenText golden_text, ParseGoldenText(entry));
    comparison.Add(golden_text);
  }
  return comparison.TakeReport();
}

std::string FormatReport(const TokenizerReport& report) {
  std::string out =
      absl::StrCat("texts                      ", report.texts, "\nids with special tokens    ",
                   report.ids_equal, " equal\nids without                ", report.ids_plain_equal,
                   " equal\ndecoded texts              ", report.decoded_equal, " equal\n");
  for (const TokenizerMismatch& mismatch : report.mismatches) {
    absl::StrAppend(&out, mismatch.what, " of \"", absl::Utf8SafeCEscape(mismatch.text),
                    "\"\n  expected  ", absl::Utf8SafeCEscape(mismatch.expected), "\n  actual    ",
                    absl::Utf8SafeCEscape(mismatch.actual), "\n");
  }
  absl::StrAppend(&out, report.ok() ? "OK" : "FAILED", "\n");
  return out;
}

}  // namespace anabranch
