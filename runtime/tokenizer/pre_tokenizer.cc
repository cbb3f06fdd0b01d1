#include "runtime/tokenizer/pre_tokenizer.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/tokenizer/byte_level.h"
#include "runtime/tokenizer/gpt2_split.h"
#include "runtime/tokenizer/pattern.h"
#include "runtime/tokenizer/split.h"
#include "runtime/tokenizer/unicode_class.h"
#include "runtime/tokenizer/utf8.h"
#include "statestore/base/status_macros.h"

namespace anabranch::tokenizer {
namespace {

using PreTokenizerOr = absl::StatusOr<std::unique_ptr<PreTokenizer>>;

absl::string_view WordOf(const Words& words, const Range& range) {
  return absl::string_view(words.text).substr(range.begin, range.end - range.begin);
}

// Replaces the words' text by one that `append(word, &text)` writes word by word.
template <typename Append>
void RewriteWords(const Append& append, Words* words) {
  std::string text;
  text.reserve(words->text.size() + words->text.size() / 4);
  for (Range& range : words->ranges) {
    const size_t begin = text.size();
    append(WordOf(*words, range), &text);
    range = {begin, text.size()};
  }
  words->text = std::move(text);
}

absl::Status SplitByRegex(const Regex& regex, SplitBehavior behavior, bool invert, Words* words) {
  std::vector<Range> cut, matches;
  cut.reserve(words->text.size() / 4);
  for (const Range& range : words->ranges) {
    ANABRANCH_RETURN_IF_ERROR(regex.FindAll(WordOf(*words, range), &matches));
    for (Range& match : matches) match = {match.begin + range.begin, match.end + range.begin};
    SplitAtMatches(range, matches, behavior, invert, &cut);
  }
  words->ranges = std::move(cut);
  return absl::OkStatus();
}

class ByteLevelPreTokenizer : public PreTokenizer {
 public:
  ByteLevelPreTokenizer(bool add_prefix_space, bool split)
      : add_prefix_space_(add_prefix_space), split_(split) {}

  absl::Status Apply(Words* words) const override {
    if (add_prefix_space_) {
      RewriteWords(
          [](absl::string_view word, std::string* out) {
            if (!absl::StartsWith(word, " ")) out->push_back(' ');
            out->append(word.data(), word.size());
          },
          words);
    }
    if (split_) {
      std::vector<Range> cut;
      cut.reserve(words->text.size() / 4);
      for (const Range& range : words->ranges) SplitGpt2(words->text, range, &cut);
      words->ranges = std::move(cut);
    }
    RewriteWords(AppendByteLevel, words);
    return absl::OkStatus();
  }

 private:
  const bool add_prefix_space_;
  const bool split_;
};

class SplitPreTokenizer : public PreTokenizer {
 public:
  SplitPreTokenizer(Regex regex, SplitBehavior behavior, bool invert)
      : regex_(std::move(regex)), behavior_(behavior), invert_(invert) {}
  absl::Status Apply(Words* words) const override {
    return SplitByRegex(regex_, behavior_, invert_, words);
  }

 private:
  const Regex regex_;
  const SplitBehavior behavior_;
  const bool invert_;
};

// Digits and Punctuation: the matches are single characters of a class.
class CharacterPreTokenizer : public PreTokenizer {
 public:
  CharacterPreTokenizer(bool (*is_match)(char32_t), SplitBehavior behavior)
      : is_match_(is_match), behavior_(behavior) {}

  absl::Status Apply(Words* words) const override {
    std::vector<Range> cut, matches;
    for (const Range& range : words->ranges) {
      matches.clear();
      for (size_t pos = range.begin; pos < range.end;) {
        const size_t begin = pos;
        if (is_match_(NextCodePoint(words->text, &pos))) matches.push_back({begin, pos});
      }
      SplitAtMatches(range, matches, behavior_, /*invert=*/false, &cut);
    }
    words->ranges = std::move(cut);
    return absl::OkStatus();
  }

 private:
  bool (*const is_match_)(char32_t);
  const SplitBehavior behavior_;
};

class MetaspacePreTokenizer : public PreTokenizer {
 public:
  enum class Prepend { kAlways, kFirst, kNever };
  MetaspacePreTokenizer(std::string mark, Regex mark_regex, Prepend prepend, bool split)
      : mark_(std::move(mark)),
        mark_regex_(std::move(mark_regex)),
        prepend_(prepend),
        split_(split) {}

  absl::Status Apply(Words* words) const override {
    bool is_first = words->at_input_start;
    RewriteWords(
        [&](absl::string_view word, std::string* out) {
          const bool wanted =
              prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && is_first);
          is_first = false;
          if (wanted && !absl::StartsWith(word, mark_) && word[0] != ' ') out->append(mark_);
          for (const char c : word) {
            if (c == ' ') {
              out->append(mark_);
            } else {
              out->push_back(c);
            }
          }
        },
        words);
    if (!split_) return absl::OkStatus();
    return SplitByRegex(mark_regex_, SplitBehavior::kMergedWithNext, /*invert=*/false, words);
  }

 private:
  const std::string mark_;
  const Regex mark_regex_;
  const Prepend prepend_;
  const bool split_;
};

class PreTokenizerSequence : public PreTokenizer {
 public:
  explicit PreTokenizerSequence(std::vector<std::unique_ptr<PreTokenizer>> parts)
      : parts_(std::move(parts)) {}
  absl::Status Apply(Words* words) const override {
    for (const auto& part : parts_) ANABRANCH_RETURN_IF_ERROR(part->Apply(words));
    return absl::OkStatus();
  }

 private:
  const std::vector<std::unique_ptr<PreTokenizer>> parts_;
};

PreTokenizerOr ParseByteLevel(const Json& json) {
  constexpr absl::string_view kName = "pre_tokenizer ByteLevel";
  ANABRANCH_ASSIGN_OR_RETURN(const bool prefix, BoolField(json, "add_prefix_space", kName));
  ANABRANCH_ASSIGN_OR_RETURN(const bool use_regex, BoolField(json, "use_regex", kName, true));
  return std::make_unique<ByteLevelPreTokenizer>(prefix, use_regex);
}

PreTokenizerOr ParseSplit(const Json& json) {
  constexpr absl::string_view kName = "pre_tokenizer Split";
  ANABRANCH_ASSIGN_OR_RETURN(Regex regex, ParsePattern(json, kName));
  ANABRANCH_ASSIGN_OR_RETURN(const SplitBehavior behavior, ParseSplitBehavior(json, kName));
  ANABRANCH_ASSIGN_OR_RETURN(const bool invert, BoolField(json, "invert", kName));
  return std::make_unique<SplitPreTokenizer>(std::move(regex), behavior, invert);
}

PreTokenizerOr ParseDigits(const Json& json) {
  ANABRANCH_ASSIGN_OR_RETURN(const bool individual,
                             BoolField(json, "individual_digits", "pre_tokenizer Digits", false));
  return std::make_unique<CharacterPreTokenizer>(
      &IsNumeric, individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
}

PreTokenizerOr ParsePunctuation(const Json& json) {
  SplitBehavior behavior = SplitBehavior::kIsolated;
  if (Find(json, "behavior") != nullptr) {
    ANABRANCH_ASSIGN_OR_RETURN(behavior, ParseSplitBehavior(json, "pre_tokenizer Punctuation"));
  }
  return std::make_unique<CharacterPreTokenizer>(&IsPunctuation, behavior);
}

PreTokenizerOr ParseMetaspace(const Json& json) {
  using Prepend = MetaspacePreTokenizer::Prepend;
  constexpr absl::string_view kName = "pre_tokenizer Metaspace";
  ANABRANCH_ASSIGN_OR_RETURN(std::string mark, StringField(json, "replacement", kName));
  if (mark.empty()) return absl::InvalidArgumentError(absl::StrCat(kName, ": empty replacement"));
  ANABRANCH_ASSIGN_OR_RETURN(Regex regex, Regex::Literal(mark));
  // Files from before prepend_scheme say add_prefix_space instead.
  ANABRANCH_ASSIGN_OR_RETURN(const bool legacy, BoolField(json, "add_prefix_space", kName, true));
  ANABRANCH_ASSIGN_OR_RETURN(const std::string scheme, StringField(json, "prepend_scheme", kName,
                                                                   legacy ? "always" : "never"));
  ANABRANCH_ASSIGN_OR_RETURN(const bool split, BoolField(json, "split", kName, true));
  Prepend prepend = Prepend::kAlways;
  if (scheme == "first") {
    prepend = Prepend::kFirst;
  } else if (scheme == "never") {
    prepend = Prepend::kNever;
  } else if (scheme != "always") {
    return Unsupported(absl::StrCat(kName, " prepend_scheme"), scheme);
  }
  return std::make_unique<MetaspacePreTokenizer>(std::move(mark), std::move(regex), prepend, split);
}

// Sequences are not nested: see ParseNormalizer.
PreTokenizerOr ParseOne(const Json& json) {
  ANABRANCH_ASSIGN_OR_RETURN(const std::string type, ComponentType(json, "pre_tokenizer"));
  if (type == "ByteLevel") return ParseByteLevel(json);
  if (type == "Split") return ParseSplit(json);
  if (type == "Digits") return ParseDigits(json);
  if (type == "Punctuation") return ParsePunctuation(json);
  if (type == "Metaspace") return ParseMetaspace(json);
  return Unsupported("pre_tokenizer", type);
}

}  // namespace

PreTokenizerOr ParsePreTokenizer(const Json* json) {
  if (json == nullptr) return nullptr;
  ANABRANCH_ASSIGN_OR_RETURN(const std::string type, ComponentType(*json, "pre_tokenizer"));
  if (type != "Sequence") return ParseOne(*json);
  ANABRANCH_ASSIGN_OR_RETURN(const Json* parts,
                             ArrayField(*json, "pretokenizers", "pre_tokenizer Sequence"));
  std::vector<std::unique_ptr<PreTokenizer>> sequence;
  for (const Json& part : *parts) {
    ANABRANCH_ASSIGN_OR_RETURN(auto pre_tokenizer, ParseOne(part));
    sequence.push_back(std::move(pre_tokenizer));
  }
  return std::make_unique<PreTokenizerSequence>(std::move(sequence));
}

}  // namespace anabranch::tokenizer
