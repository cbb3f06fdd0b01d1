#include "runtime/tokenizer/decoder.h"

#include <cstdint>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "runtime/tokenizer/byte_level.h"
#include "runtime/tokenizer/pattern.h"
#include "runtime/tokenizer/utf8.h"
#include "statestore/base/status_macros.h"

namespace anabranch::tokenizer {
namespace {

using DecoderOr = absl::StatusOr<std::unique_ptr<Decoder>>;

class ByteLevelDecoder : public Decoder {
 public:
  void Decode(std::vector<std::string>* tokens) const override {
    std::string bytes, text;
    for (const std::string& token : *tokens) bytes += ByteLevelTokenBytes(token);
    AppendLossyUtf8(bytes, /*is_final=*/true, &text);
    *tokens = {std::move(text)};
  }
  std::string TokenBytes(std::string token, bool /*is_first*/) const override {
    return ByteLevelTokenBytes(token);
  }
};

// "<0xE2>" is the byte E2.
std::optional<char> ByteOfToken(absl::string_view token) {
  uint32_t byte = 0;
  if (token.size() != 6 || !absl::StartsWith(token, "<0x") || token[5] != '>' ||
      !absl::ascii_isxdigit(static_cast<unsigned char>(token[3])) ||
      !absl::SimpleHexAtoi(token.substr(3, 2), &byte)) {
    return std::nullopt;
  }
  return static_cast<char>(byte);
}

class ByteFallbackDecoder : public Decoder {
 public:
  void Decode(std::vector<std::string>* tokens) const override {
    std::vector<std::string> result;
    std::string run;
    for (std::string& token : *tokens) {
      if (const auto byte = ByteOfToken(token); byte.has_value()) {
        run.push_back(*byte);
        continue;
      }
      Flush(&run, &result);
      result.push_back(std::move(token));
    }
    Flush(&run, &result);
    *tokens = std::move(result);
  }
  std::string TokenBytes(std::string token, bool /*is_first*/) const override {
    const auto byte = ByteOfToken(token);
    return byte.has_value() ? std::string(1, *byte) : token;
  }

 private:
  // A run that is not valid as a whole gives one U+FFFD for each of its bytes.
  static void Flush(std::string* run, std::vector<std::string>* result) {
    if (run->empty()) return;
    if (ValidUtf8Length(*run) == run->size()) {
      result->push_back(*run);
    } else {
      result->insert(result->end(), run->size(), "\xEF\xBF\xBD");
    }
    run->clear();
  }
};

class FuseDecoder : public Decoder {
 public:
  void Decode(std::vector<std::string>* tokens) const override {
    *tokens = {absl::StrJoin(*tokens, "")};
  }
  std::string TokenBytes(std::string token, bool /*is_first*/) const override { return token; }
};

// Only the form that follows Fuse in the files of SentencePiece models: one space at the start.
class StripDecoder : public Decoder {
 public:
  void Decode(std::vector<std::string>* tokens) const override {
    for (std::string& token : *tokens) token = TokenBytes(std::move(token), /*is_first=*/true);
  }
  std::string TokenBytes(std::string token, bool is_first) const override {
    if (is_first && absl::StartsWith(token, " ")) token.erase(0, 1);
    return token;
  }
};

class ReplaceDecoder : public Decoder {
 public:
  explicit ReplaceDecoder(Replacement replacement) : replacement_(std::move(replacement)) {}
  void Decode(std::vector<std::string>* tokens) const override {
    for (std::string& token : *tokens) token = TokenBytes(std::move(token), /*is_first=*/false);
  }
  // Replacing fails only for texts far longer than tokens; such a token then stays as it is.
  std::string TokenBytes(std::string token, bool /*is_first*/) const override {
    replacement_.Apply(&token).IgnoreError();
    return token;
  }

 private:
  const Replacement replacement_;
};

class MetaspaceDecoder : public Decoder {
 public:
  MetaspaceDecoder(std::string mark, bool drop_first)
      : mark_(std::move(mark)), drop_first_(drop_first) {}
  void Decode(std::vector<std::string>* tokens) const override {
    bool is_first = true;
    for (std::string& token : *tokens) {
      token = TokenBytes(std::move(token), std::exchange(is_first, false));
    }
  }
  std::string TokenBytes(std::string token, bool is_first) const override {
    return absl::StrReplaceAll(token, {{mark_, is_first && drop_first_ ? "" : " "}});
  }

 private:
  const std::string mark_;
  const bool drop_first_;
};

class SpaceJoinDecoder : public Decoder {
 public:
  void Decode(std::vector<std::string>* tokens) const override {
    *tokens = {absl::StrJoin(*tokens, " ")};
  }
  std::string TokenBytes(std::string token, bool is_first) const override {
    return is_first ? token : absl::StrCat(" ", token);
  }
};

class DecoderSequence : public Decoder {
 public:
  explicit DecoderSequence(std::vector<std::unique_ptr<Decoder>> parts)
      : parts_(std::move(parts)) {}
  void Decode(std::vector<std::string>* tokens) const override {
    for (const auto& part : parts_) part->Decode(tokens);
  }
  std::string TokenBytes(std::string token, bool is_first) const override {
    for (const auto& part : parts_) token = part->TokenBytes(std::move(token), is_first);
    return token;
  }

 private:
  const std::vector<std::unique_ptr<Decoder>> parts_;
};

DecoderOr ParseStrip(const Json& json, bool after_fuse) {
  const Json* start = Find(json, "start");
  const Json* stop = Find(json, "stop");
  ANABRANCH_ASSIGN_OR_RETURN(const std::string content,
                             StringField(json, "content", "decoder Strip"));
  if (!after_fuse || content != " " || start == nullptr || *start != 1 || stop == nullptr ||
      *stop != 0) {
    return absl::InvalidArgumentError(
        "unsupported decoder 'Strip': only one leading space (content ' ', start 1, stop 0) after "
        "Fuse");
  }
  return std::make_unique<StripDecoder>();
}

DecoderOr ParseMetaspace(const Json& json) {
  constexpr absl::string_view kName = "decoder Metaspace";
  ANABRANCH_ASSIGN_OR_RETURN(std::string mark, StringField(json, "replacement", kName));
  if (mark.empty()) return absl::InvalidArgumentError("decoder Metaspace: empty replacement");
  ANABRANCH_ASSIGN_OR_RETURN(const bool legacy, BoolField(json, "add_prefix_space", kName, true));
  ANABRANCH_ASSIGN_OR_RETURN(const std::string scheme, StringField(json, "prepend_scheme", kName,
                                                                   legacy ? "always" : "never"));
  return std::make_unique<MetaspaceDecoder>(std::move(mark), scheme != "never");
}

// Sequences are not nested: see ParseNormalizer.
DecoderOr ParseOne(const Json& json, absl::string_view type, bool after_fuse) {
  if (type == "ByteLevel") return std::make_unique<ByteLevelDecoder>();
  if (type == "ByteFallback") return std::make_unique<ByteFallbackDecoder>();
  if (type == "Fuse") return std::make_unique<FuseDecoder>();
  if (type == "Strip") return ParseStrip(json, after_fuse);
  if (type == "Metaspace") return ParseMetaspace(json);
  if (type == "Replace") {
    ANABRANCH_ASSIGN_OR_RETURN(Replacement replacement,
                               Replacement::Parse(json, "decoder Replace"));
    return std::make_unique<ReplaceDecoder>(std::move(replacement));
  }
  return Unsupported("decoder", type);
}

}  // namespace

DecoderOr ParseDecoder(const Json* json) {
  if (json == nullptr) return std::make_unique<SpaceJoinDecoder>();
  ANABRANCH_ASSIGN_OR_RETURN(const std::string type, ComponentType(*json, "decoder"));
  if (type != "Sequence") return ParseOne(*json, type, /*after_fuse=*/false);
  ANABRANCH_ASSIGN_OR_RETURN(const Json* parts, ArrayField(*json, "decoders", "decoder Sequence"));
  std::vector<std::unique_ptr<Decoder>> sequence;
  bool after_fuse = false;
  for (const Json& part : *parts) {
    const absl::StatusOr<std::string> part_type = ComponentType(part, "decoder");
    if (!part_type.ok()) return part_type.status();
    ANABRANCH_ASSIGN_OR_RETURN(auto decoder, ParseOne(part, *part_type, after_fuse));
    sequence.push_back(std::move(decoder));
    after_fuse = after_fuse || *part_type == "Fuse";
  }
  return std::make_unique<DecoderSequence>(std::move(sequence));
}

}  // namespace anabranch::tokenizer
