#include "runtime/tokenizer.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "runtime/tokenizer/added_tokens.h"
#include "runtime/tokenizer/bpe.h"
#include "runtime/tokenizer/decoder.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/normalizer.h"
#include "runtime/tokenizer/post_processor.h"
#include "runtime/tokenizer/pre_tokenizer.h"
#include "runtime/tokenizer/utf8.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

using tokenizer::AddedToken;
using tokenizer::AddedTokenMatcher;
using tokenizer::Bpe;
using tokenizer::Find;
using tokenizer::Json;
using tokenizer::Piece;

constexpr size_t kMaxFileBytes = 256 << 20;
constexpr size_t kMaxTextBytes = size_t{1} << 30;  // ids and positions inside are 32-bit

// The steps of tokenizer.json in their order. A member that is absent changes nothing.
struct Pipeline {
  std::vector<AddedToken> added;
  std::unique_ptr<AddedTokenMatcher> raw_matcher;          // for tokens with normalized=false
  std::unique_ptr<tokenizer::Normalizer> normalizer;       // may be nullptr
  std::unique_ptr<AddedTokenMatcher> normalized_matcher;   // for tokens with normalized=true
  std::unique_ptr<AddedTokenMatcher> special_matcher;      // for special tokens, as written
  std::unique_ptr<tokenizer::PreTokenizer> pre_tokenizer;  // may be nullptr
  std::unique_ptr<Bpe> model;
  tokenizer::PostProcessor post_processor;
  std::unique_ptr<tokenizer::Decoder> decoder;
  absl::flat_hash_map<std::string, int32_t> added_ids;          // by content
  absl::flat_hash_map<int32_t, const AddedToken*> added_by_id;  // into `added`
  int32_t vocab_size = 0;
};

class PipelineTokenizer : public Tokenizer {
 public:
  explicit PipelineTokenizer(Pipeline pipeline) : p_(std::move(pipeline)) {}

  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              const EncodeOptions& options) const override {
    std::vector<int32_t> ids;
    ids.reserve(text.size() / 3);
    Bpe::Scratch scratch;
    ANABRANCH_RETURN_IF_ERROR(
        EncodeText(text, /*at_input_start=*/true, options.parse_special_tokens, &scratch, &ids));
    if (options.add_special_tokens) p_.post_processor.Apply(&ids);
    return ids;
  }

  absl::StatusOr<std::vector<int32_t>> EncodePieces(absl::Span<const TextPiece> pieces,
                                                    bool at_input_start) const override {
    std::vector<int32_t> ids;
    Bpe::Scratch scratch;
    std::string plain;  // text since the last special token
    const auto encode_plain = [&]() -> absl::Status {
      if (!plain.empty()) {
        ANABRANCH_RETURN_IF_ERROR(EncodeText(plain, at_input_start && ids.empty(),
                                             /*parse_special=*/false, &scratch, &ids));
      }
      plain.clear();
      return absl::OkStatus();
    };
    for (const TextPiece& piece : pieces) {
      ANABRANCH_RETURN_IF_ERROR(CheckText(piece.text));
      if (!piece.is_format) {
        plain += piece.text;
        continue;
      }
      for (const Piece& part : p_.special_matcher->Split(piece.text, /*parse_special=*/true)) {
        if (part.token == nullptr) {
          plain.append(part.text.data(), part.text.size());
          continue;
        }
        ANABRANCH_RETURN_IF_ERROR(encode_plain());
        ids.push_back(part.token->id);
      }
    }
    ANABRANCH_RETURN_IF_ERROR(encode_plain());
    return ids;
  }

  std::string Decode(absl::Span<const int32_t> ids, bool skip_special) const override {
    std::vector<std::string> tokens;
    tokens.reserve(ids.size());
    for (const int32_t id : ids) {
      if (skip_special && IsSpecial(id)) continue;
      const absl::string_view content = Content(id);
      if (!content.empty()) tokens.emplace_back(content);
    }
    p_.decoder->Decode(&tokens);
    std::string text;
    for (const std::string& token : tokens) text += token;
    return text;
  }

  std::string TokenBytes(int32_t id) const override {
    return p_.decoder->TokenBytes(std::string(Content(id)), /*is_first=*/false);
  }
  std::string FirstTokenBytes(int32_t id) const override {
    return p_.decoder->TokenBytes(std::string(Content(id)), /*is_first=*/true);
  }

  std::optional<int32_t> TokenId(absl::string_view token) const override {
    const auto it = p_.added_ids.find(token);
    return it != p_.added_ids.end() ? it->second : p_.model->TokenId(token);
  }
  bool IsSpecial(int32_t id) const override {
    const auto it = p_.added_by_id.find(id);
    return it != p_.added_by_id.end() && it->second->special;
  }
  int32_t vocab_size() const override { return p_.vocab_size; }

 private:
  absl::string_view Content(int32_t id) const {
    const auto it = p_.added_by_id.find(id);
    return it != p_.added_by_id.end() ? it->second->content : p_.model->Token(id);
  }

  static absl::Status CheckText(absl::string_view text) {
    if (text.size() > kMaxTextBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("the text has ", text.size(), " bytes; at most ", kMaxTextBytes));
    }
    const size_t valid = tokenizer::ValidUtf8Length(text);
    if (valid == text.size()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("the text is not valid UTF-8 at byte ", valid));
  }

  absl::Status EncodeText(absl::string_view text, bool at_input_start, bool parse_special,
                          Bpe::Scratch* scratch, std::vector<int32_t>* ids) const {
    ANABRANCH_RETURN_IF_ERROR(CheckText(text));
    for (const Piece& piece : p_.raw_matcher->Split(text, parse_special)) {
      if (piece.token != nullptr) {
        ids->push_back(piece.token->id);
        continue;
      }
      const bool at_start = at_input_start && piece.text.data() == text.data();
      ANABRANCH_RETURN_IF_ERROR(EncodeRaw(piece.text, at_start, parse_special, scratch, ids));
    }
    return absl::OkStatus();
  }

  absl::Status EncodeRaw(absl::string_view raw, bool at_start, bool parse_special,
                         Bpe::Scratch* scratch, std::vector<int32_t>* ids) const {
    std::string text(raw);
    if (p_.normalizer != nullptr) ANABRANCH_RETURN_IF_ERROR(p_.normalizer->Apply(&text));
    for (const Piece& piece : p_.normalized_matcher->Split(text, parse_special)) {
      if (piece.token != nullptr) {
        ids->push_back(piece.token->id);
        continue;
      }
      tokenizer::Words words{std::string(piece.text),
                             {{0, piece.text.size()}},
                             at_start && piece.text.data() == text.data()};
      if (p_.pre_tokenizer != nullptr) ANABRANCH_RETURN_IF_ERROR(p_.pre_tokenizer->Apply(&words));
      for (const tokenizer::Range& range : words.ranges) {
        p_.model->Encode(absl::string_view(words.text).substr(range.begin, range.end - range.begin),
                         scratch, ids);
      }
    }
    return absl::OkStatus();
  }

  const Pipeline p_;
};

// A token that the model knows too must have the model's id, and no two contents share an id.
absl::Status IndexAddedTokens(Pipeline* p) {
  p->vocab_size = p->model->vocab_size();
  for (const AddedToken& token : p->added) {
    const std::optional<int32_t> model_id = p->model->TokenId(token.content);
    const absl::string_view model_content = p->model->Token(token.id);
    const bool is_new = p->added_ids.emplace(token.content, token.id).second &&
                        p->added_by_id.emplace(token.id, &token).second;
    if (!is_new || (model_id.has_value() && *model_id != token.id) ||
        (!model_content.empty() && model_content != token.content)) {
      return absl::InvalidArgumentError(absl::StrCat("added_tokens: '", token.content, "' and id ",
                                                     token.id, " are already taken"));
    }
    p->vocab_size = std::max(p->vocab_size, token.id + 1);
  }
  return absl::OkStatus();
}

// Special tokens first: of two tokens that look the same after normalization they win.
absl::Status MakeMatchers(Pipeline* p) {
  std::vector<const AddedToken*> tokens[2];
  std::vector<std::string> patterns[2];
  for (const bool special : {true, false}) {
    for (const AddedToken& token : p->added) {
      if (token.special != special) continue;
      std::string pattern = token.content;
      if (token.normalized && p->normalizer != nullptr) {
        ANABRANCH_RETURN_IF_ERROR(p->normalizer->Apply(&pattern));
      }
      tokens[token.normalized].push_back(&token);
      patterns[token.normalized].push_back(std::move(pattern));
    }
  }
  p->raw_matcher = std::make_unique<AddedTokenMatcher>(tokens[false], patterns[false]);
  p->normalized_matcher = std::make_unique<AddedTokenMatcher>(tokens[true], patterns[true]);
  std::vector<const AddedToken*> special;
  std::vector<std::string> contents;
  for (const AddedToken& token : p->added) {
    if (!token.special) continue;
    special.push_back(&token);
    contents.push_back(token.content);
  }
  p->special_matcher = std::make_unique<AddedTokenMatcher>(special, contents);
  return absl::OkStatus();
}

// The id that "model" gives a token, without reading all of it.
std::optional<int32_t> ModelTokenId(const Json& json, const std::string& content) {
  const Json* model = Find(json, "model");
  const Json* vocab = model == nullptr ? nullptr : Find(*model, "vocab");
  const Json* id = vocab == nullptr ? nullptr : Find(*vocab, content.c_str());
  if (id == nullptr) return std::nullopt;
  const auto value = tokenizer::TokenIdValue(*id, "vocab");
  return value.ok() ? std::make_optional(*value) : std::nullopt;
}

// A control token of the chat format is special even where the file says otherwise: text of a
// message must never become one.
void AddExtras(const Json& json, const Tokenizer::Extras& extras, std::vector<AddedToken>* added) {
  absl::flat_hash_map<std::string, size_t> by_content;
  absl::flat_hash_set<int32_t> ids;
  for (size_t i = 0; i < added->size(); ++i) {
    by_content.emplace((*added)[i].content, i);
    ids.insert((*added)[i].id);
  }
  const auto add = [&](const AddedToken& token) {
    by_content.emplace(token.content, added->size());
    ids.insert(token.id);
    added->push_back(token);
  };
  for (const AddedToken& token : extras.added_tokens) {
    const std::optional<int32_t> model_id = ModelTokenId(json, token.content);
    const bool unused = !by_content.contains(token.content) && !ids.contains(token.id);
    if (unused && model_id.value_or(token.id) == token.id) add(token);
  }
  for (const std::string& content : extras.control_tokens) {
    if (const auto known = by_content.find(content); known != by_content.end()) {
      (*added)[known->second].special = true;
    } else if (const auto id = ModelTokenId(json, content); id.has_value() && !content.empty()) {
      AddedToken token;
      token.content = content;
      token.id = *id;
      token.special = true;
      add(token);
    }
  }
}

absl::StatusOr<Pipeline> ParsePipeline(const Json& json, const Tokenizer::Extras& extras) {
  Pipeline p;
  ANABRANCH_ASSIGN_OR_RETURN(p.added, tokenizer::ParseAddedTokens(Find(json, "added_tokens")));
  AddExtras(json, extras, &p.added);
  absl::flat_hash_set<std::string> special;
  for (const AddedToken& token : p.added) {
    if (token.special) special.insert(token.content);
  }
  ANABRANCH_ASSIGN_OR_RETURN(p.model, Bpe::Parse(Find(json, "model"), special));
  ANABRANCH_ASSIGN_OR_RETURN(p.normalizer, tokenizer::ParseNormalizer(Find(json, "normalizer")));
  ANABRANCH_ASSIGN_OR_RETURN(p.pre_tokenizer,
                             tokenizer::ParsePreTokenizer(Find(json, "pre_tokenizer")));
  ANABRANCH_ASSIGN_OR_RETURN(p.decoder, tokenizer::ParseDecoder(Find(json, "decoder")));
  ANABRANCH_RETURN_IF_ERROR(IndexAddedTokens(&p));
  ANABRANCH_ASSIGN_OR_RETURN(p.post_processor, tokenizer::PostProcessor::Parse(
                                                   Find(json, "post_processor"), p.vocab_size));
  ANABRANCH_RETURN_IF_ERROR(MakeMatchers(&p));
  return p;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(absl::string_view json,
                                                               const Extras& extras) {
  if (json.size() > kMaxFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer.json has ", json.size(),
                                                   " bytes; at most ", kMaxFileBytes, " are read"));
  }
  ANABRANCH_ASSIGN_OR_RETURN(const Json parsed, tokenizer::ParseJson(json, "tokenizer.json"));
  ANABRANCH_ASSIGN_OR_RETURN(Pipeline pipeline, ParsePipeline(parsed, extras));
  return std::make_unique<PipelineTokenizer>(std::move(pipeline));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromFile(const std::string& path,
                                                               const Extras& extras) {
  ANABRANCH_ASSIGN_OR_RETURN(const std::string json, tokenizer::ReadSmallFile(path, kMaxFileBytes));
  return FromJson(json, extras);
}

}  // namespace anabranch
