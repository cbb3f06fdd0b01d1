#include "runtime/chat_formats.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/types/span.h"
#include "runtime/chat_formats/embedded.h"
#include "runtime/tokenizer/json_fields.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

using tokenizer::Find;
using tokenizer::Json;

// Spellings that mean the same to Jinja become one.
std::string Normalized(absl::string_view source) {
  std::string text;
  for (const absl::string_view term : absl::StrSplit(source, '+')) {
    if (!text.empty()) text.push_back('+');
    absl::StrAppend(&text, absl::StripAsciiWhitespace(term));
  }
  return absl::StrReplaceAll(text, {{"\"", "'"},
                                    {"message.content", "message['content']"},
                                    {"message[\"content\"]", "message['content']"}});
}

// Whether `normalized` contains the strings of the format's list: how many of them, and of how
// many.
bool HasAll(const std::string& normalized, const Json* list) {
  return list != nullptr && std::all_of(list->begin(), list->end(), [&](const Json& marker) {
           return absl::StrContains(normalized, Normalized(marker.get<std::string>()));
         });
}
bool HasAny(const std::string& normalized, const Json* list) {
  return list != nullptr && std::any_of(list->begin(), list->end(), [&](const Json& marker) {
           return absl::StrContains(normalized, Normalized(marker.get<std::string>()));
         });
}

absl::Status ChooseByFlag(absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(
      problem, "; choose one with --chat-format ", absl::StrJoin(ChatFormatNames(), "|"),
      ", --chat-format none to serve text and tokens only, or describe it in a "
      "chat_format.json in the model's folder"));
}

// Puts the config's tokens into all strings of the format.
absl::Status ExpandTokens(const TokenizerConfig& config, Json* value) {
  if (value->is_string()) {
    std::string& text = value->get_ref<std::string&>();
    const std::pair<absl::string_view, const std::string*> tokens[] = {
        {"{bos_token}", &config.bos_token}, {"{eos_token}", &config.eos_token}};
    for (const auto& [name, token] : tokens) {
      if (!absl::StrContains(text, name)) continue;
      if (token->empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat("needs ", name.substr(1, name.size() - 2),
                         ", which the model's tokenizer_config.json does not name"));
      }
      text = absl::StrReplaceAll(text, {{name, *token}});
    }
    return absl::OkStatus();
  }
  if (!value->is_structured()) return absl::OkStatus();
  for (Json& part : *value) ANABRANCH_RETURN_IF_ERROR(ExpandTokens(config, &part));
  return absl::OkStatus();
}

void DropUnnamedStops(const TokenizerConfig& config, Json* stop) {
  Json kept = Json::array();
  for (Json& token : *stop) {
    const bool unnamed = (token == "{bos_token}" && config.bos_token.empty()) ||
                         (token == "{eos_token}" && config.eos_token.empty());
    if (!unnamed) kept.push_back(std::move(token));
  }
  *stop = std::move(kept);
}

const EmbeddedChatFormat* FindFormat(absl::string_view name) {
  for (const EmbeddedChatFormat& format : EmbeddedChatFormats()) {
    if (format.name == name) return &format;
  }
  return nullptr;
}

}  // namespace

std::vector<std::string> ChatFormatNames() {
  std::vector<std::string> names;
  for (const EmbeddedChatFormat& format : EmbeddedChatFormats()) names.emplace_back(format.name);
  return names;
}

absl::StatusOr<std::string> RecogniseChatTemplate(absl::string_view chat_template) {
  const std::string normalized = Normalized(chat_template);
  std::vector<std::string> found;
  for (const EmbeddedChatFormat& format : EmbeddedChatFormats()) {
    ANABRANCH_ASSIGN_OR_RETURN(const Json json, tokenizer::ParseJson(format.json, format.name));
    if (HasAll(normalized, Find(json, "template_has")) &&
        !HasAny(normalized, Find(json, "template_lacks"))) {
      found.emplace_back(format.name);
    }
  }
  if (found.size() == 1) return found.front();
  if (found.empty()) return ChooseByFlag("the chat template is of no known format");
  return ChooseByFlag(
      absl::StrCat("the chat template could be any of ", absl::StrJoin(found, ", ")));
}

absl::StatusOr<std::string> NamedChatFormat(absl::string_view name, const TokenizerConfig& config) {
  const EmbeddedChatFormat* format = FindFormat(name);
  if (format == nullptr) {
    return ChooseByFlag(absl::StrCat("there is no chat format '", name, "'"));
  }
  ANABRANCH_ASSIGN_OR_RETURN(Json json, tokenizer::ParseJson(format->json, name));
  const std::string normalized = Normalized(config.chat_template);
  if (const Json* variants = Find(json, "variants"); variants != nullptr) {
    for (const Json& variant : Json(*variants)) {
      if (HasAll(normalized, Find(variant, "if_template_has"))) json.merge_patch(variant["set"]);
    }
  }
  for (const char* field : {"template_has", "template_lacks", "variants"}) json.erase(field);
  DropUnnamedStops(config, &json["stop"]);
  const absl::Status expanded = ExpandTokens(config, &json);
  if (!expanded.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("chat format '", name, "' ", expanded.message()));
  }
  return json.dump();
}

}  // namespace anabranch
