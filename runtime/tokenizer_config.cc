#include "runtime/tokenizer_config.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/tokenizer/json_fields.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

using tokenizer::Find;
using tokenizer::Json;

constexpr absl::string_view kName = "tokenizer_config.json";

absl::StatusOr<std::string> TokenField(const Json& json, const char* name) {
  const Json* value = Find(json, name);
  if (value == nullptr) return std::string();
  if (value->is_object()) return tokenizer::StringField(*value, "content", kName);
  return tokenizer::StringField(json, name, kName);
}

absl::StatusOr<std::string> DefaultOfTemplates(const Json& list, absl::string_view file) {
  std::vector<std::string> names;
  for (const Json& entry : list) {
    ANABRANCH_ASSIGN_OR_RETURN(std::string name, tokenizer::StringField(entry, "name", file));
    ANABRANCH_ASSIGN_OR_RETURN(std::string text, tokenizer::StringField(entry, "template", file));
    if (name == "default" || list.size() == 1) return text;
    names.push_back(std::move(name));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      file, ": of the chat templates [", absl::StrJoin(names, ", "), "] none is named 'default'"));
}

absl::StatusOr<std::string> TemplateField(const Json& json, absl::string_view file) {
  const Json* value = Find(json, "chat_template");
  if (value == nullptr) return std::string();
  if (value->is_array()) return DefaultOfTemplates(*value, file);
  if (!value->is_string()) {
    return absl::InvalidArgumentError(absl::StrCat(
        file, ": field 'chat_template' must be a string or a list of named templates"));
  }
  return value->get<std::string>();
}

absl::StatusOr<std::vector<tokenizer::AddedToken>> ReadAddedTokens(const Json& json) {
  const Json* decoder = Find(json, "added_tokens_decoder");
  if (decoder == nullptr) return std::vector<tokenizer::AddedToken>();
  if (!decoder->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(kName, ": field 'added_tokens_decoder' must be an object"));
  }
  Json list = Json::array();
  for (const auto& [key, token] : decoder->items()) {
    uint32_t id = 0;
    if (!absl::SimpleAtoi(key, &id) || !token.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(kName, ": added_tokens_decoder: '", key,
                                                     "' must be a token id with an object"));
    }
    Json entry = token;
    entry["id"] = id;
    list.push_back(std::move(entry));
  }
  return tokenizer::ParseAddedTokens(&list);
}

}  // namespace

absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(absl::string_view text) {
  ANABRANCH_ASSIGN_OR_RETURN(const Json json, tokenizer::ParseJson(text, kName));
  TokenizerConfig config;
  ANABRANCH_ASSIGN_OR_RETURN(config.bos_token, TokenField(json, "bos_token"));
  ANABRANCH_ASSIGN_OR_RETURN(config.eos_token, TokenField(json, "eos_token"));
  ANABRANCH_ASSIGN_OR_RETURN(config.chat_template, TemplateField(json, kName));
  ANABRANCH_ASSIGN_OR_RETURN(config.added_tokens, ReadAddedTokens(json));
  return config;
}

absl::StatusOr<std::string> ParseChatTemplateFile(absl::string_view text, absl::string_view file) {
  ANABRANCH_ASSIGN_OR_RETURN(const Json json, tokenizer::ParseJson(text, file));
  return TemplateField(json, file);
}

}  // namespace anabranch
