#include "runtime/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/tokenizer/pattern.h"
#include "runtime/tokenizer/unicode_class.h"
#include "runtime/tokenizer/unicode_form.h"
#include "runtime/tokenizer/utf8.h"
#include "statestore/base/status_macros.h"

namespace anabranch::tokenizer {
namespace {

using NormalizerOr = absl::StatusOr<std::unique_ptr<Normalizer>>;

class FormNormalizer : public Normalizer {
 public:
  explicit FormNormalizer(UnicodeForm form) : form_(form) {}
  absl::Status Apply(std::string* text) const override { return NormalizeUnicode(form_, text); }

 private:
  const UnicodeForm form_;
};

class LowercaseNormalizer : public Normalizer {
 public:
  absl::Status Apply(std::string* text) const override {
    std::string lower;
    lower.reserve(text->size());
    for (size_t pos = 0; pos < text->size();) {
      const char32_t c = NextCodePoint(*text, &pos);
      if (c == 0x130) {  // the one character whose lower case has two: i and a dot above
        lower += "i\xCC\x87";
      } else {
        AppendCodePoint(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))),
                        &lower);
      }
    }
    *text = std::move(lower);
    return absl::OkStatus();
  }
};

class StripNormalizer : public Normalizer {
 public:
  StripNormalizer(bool left, bool right) : left_(left), right_(right) {}
  absl::Status Apply(std::string* text) const override {
    size_t end = text->size();
    for (size_t before = end; right_ && end > 0; end = before) {
      if (!IsWhitespace(PreviousCodePoint(*text, &before))) break;
    }
    size_t begin = 0;
    for (size_t behind = 0; left_ && begin < end; begin = behind) {
      if (!IsWhitespace(NextCodePoint(*text, &behind))) break;
    }
    *text = text->substr(begin, end - begin);
    return absl::OkStatus();
  }

 private:
  const bool left_, right_;
};

class PrependNormalizer : public Normalizer {
 public:
  explicit PrependNormalizer(std::string prefix) : prefix_(std::move(prefix)) {}
  absl::Status Apply(std::string* text) const override {
    if (!text->empty()) text->insert(0, prefix_);
    return absl::OkStatus();
  }

 private:
  const std::string prefix_;
};

class ReplaceNormalizer : public Normalizer {
 public:
  explicit ReplaceNormalizer(Replacement replacement) : replacement_(std::move(replacement)) {}
  absl::Status Apply(std::string* text) const override { return replacement_.Apply(text); }

 private:
  const Replacement replacement_;
};

class NormalizerSequence : public Normalizer {
 public:
  explicit NormalizerSequence(std::vector<std::unique_ptr<Normalizer>> parts)
      : parts_(std::move(parts)) {}
  absl::Status Apply(std::string* text) const override {
    for (const auto& part : parts_) ANABRANCH_RETURN_IF_ERROR(part->Apply(text));
    return absl::OkStatus();
  }

 private:
  const std::vector<std::unique_ptr<Normalizer>> parts_;
};

NormalizerOr ParseStrip(const Json& json) {
  ANABRANCH_ASSIGN_OR_RETURN(const bool left, BoolField(json, "strip_left", "normalizer Strip"));
  ANABRANCH_ASSIGN_OR_RETURN(const bool right, BoolField(json, "strip_right", "normalizer Strip"));
  return std::make_unique<StripNormalizer>(left, right);
}

// A sequence inside a sequence means the same as a flat one; allowing it would make recursion as
// deep as the file says.
NormalizerOr ParseOne(const Json& json, const std::string& type) {
  if (type == "NFC") return std::make_unique<FormNormalizer>(UnicodeForm{true, false});
  if (type == "NFD") return std::make_unique<FormNormalizer>(UnicodeForm{false, false});
  if (type == "NFKC") return std::make_unique<FormNormalizer>(UnicodeForm{true, true});
  if (type == "NFKD") return std::make_unique<FormNormalizer>(UnicodeForm{false, true});
  if (type == "Lowercase") return std::make_unique<LowercaseNormalizer>();
  if (type == "Strip") return ParseStrip(json);
  if (type == "Prepend") {
    ANABRANCH_ASSIGN_OR_RETURN(std::string prefix,
                               StringField(json, "prepend", "normalizer Prepend"));
    return std::make_unique<PrependNormalizer>(std::move(prefix));
  }
  if (type == "Replace") {
    ANABRANCH_ASSIGN_OR_RETURN(Replacement replacement,
                               Replacement::Parse(json, "normalizer Replace"));
    return std::make_unique<ReplaceNormalizer>(std::move(replacement));
  }
  return Unsupported("normalizer", type);
}

}  // namespace

NormalizerOr ParseNormalizer(const Json* json) {
  if (json == nullptr) return nullptr;
  ANABRANCH_ASSIGN_OR_RETURN(const std::string type, ComponentType(*json, "normalizer"));
  if (type != "Sequence") return ParseOne(*json, type);
  ANABRANCH_ASSIGN_OR_RETURN(const Json* parts,
                             ArrayField(*json, "normalizers", "normalizer Sequence"));
  std::vector<std::unique_ptr<Normalizer>> sequence;
  for (const Json& part : *parts) {
    ANABRANCH_ASSIGN_OR_RETURN(const std::string part_type, ComponentType(part, "normalizer"));
    ANABRANCH_ASSIGN_OR_RETURN(auto normalizer, ParseOne(part, part_type));
    sequence.push_back(std::move(normalizer));
  }
  return std::make_unique<NormalizerSequence>(std::move(sequence));
}

}  // namespace anabranch::tokenizer
