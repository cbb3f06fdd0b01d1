#include "runtime/model_text.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/chat_formats.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer_config.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr size_t kMaxFileBytes = 16 << 20;
constexpr char kOwnFormat[] = "chat_format.json", kNone[] = "none";

absl::Status InFile(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

// nullopt if the file is not there.
absl::StatusOr<std::optional<std::string>> ReadOptional(const std::string& path) {
  auto text = tokenizer::ReadSmallFile(path, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) return std::nullopt;
  if (!text.ok()) return text.status();
  return *std::move(text);
}

// tokenizer_config.json, with the chat template wherever the folder keeps it.
absl::StatusOr<TokenizerConfig> ReadConfig(const std::string& dir) {
  TokenizerConfig config;
  const std::string path = dir + "/tokenizer_config.json";
  ANABRANCH_ASSIGN_OR_RETURN(const auto text, ReadOptional(path));
  if (text.has_value()) {
    auto parsed = ParseTokenizerConfig(*text);
    if (!parsed.ok()) return InFile(dir, parsed.status());
    config = *std::move(parsed);
  }
  ANABRANCH_ASSIGN_OR_RETURN(auto jinja, ReadOptional(dir + "/chat_template.jinja"));
  if (jinja.has_value()) config.chat_template = *std::move(jinja);
  if (!config.chat_template.empty()) return config;
  const char* const kTemplateFile = "chat_template.json";
  ANABRANCH_ASSIGN_OR_RETURN(const auto json, ReadOptional(absl::StrCat(dir, "/", kTemplateFile)));
  if (!json.has_value()) return config;
  auto parsed = ParseChatTemplateFile(*json, kTemplateFile);
  if (!parsed.ok()) return InFile(dir, parsed.status());
  config.chat_template = *std::move(parsed);
  return config;
}

// The name of a format and its JSON; no JSON: none.
struct Choice {
  std::string name, json;
};

absl::StatusOr<Choice> ChooseFormat(const std::string& dir, const std::string& wanted,
                                    const TokenizerConfig& config) {
  if (wanted == kNone) return Choice{kNone, ""};
  if (wanted.empty()) {
    ANABRANCH_ASSIGN_OR_RETURN(auto own, ReadOptional(absl::StrCat(dir, "/", kOwnFormat)));
    if (own.has_value()) return Choice{kOwnFormat, *std::move(own)};
    if (config.chat_template.empty()) return Choice{kNone, ""};
  }
  Choice choice{wanted, ""};
  if (wanted.empty()) {
    ANABRANCH_ASSIGN_OR_RETURN(choice.name, RecogniseChatTemplate(config.chat_template));
  }
  ANABRANCH_ASSIGN_OR_RETURN(choice.json, NamedChatFormat(choice.name, config));
  return choice;
}

}  // namespace

absl::StatusOr<ModelText> LoadModelText(const std::string& dir, const std::string& chat_format) {
  ModelText text;
  text.chat_name = kNone;
  ANABRANCH_ASSIGN_OR_RETURN(const TokenizerConfig config, ReadConfig(dir));
  Tokenizer::Extras extras;
  extras.added_tokens = config.added_tokens;
  auto choice = ChooseFormat(dir, chat_format, config);
  if (!choice.ok()) return InFile(dir, choice.status());
  if (!choice->json.empty()) {
    auto tokens = ChatFormat::ControlTokens(choice->json);
    if (!tokens.ok()) return InFile(absl::StrCat(dir, "/", choice->name), tokens.status());
    extras.control_tokens = *std::move(tokens);
  }
  auto tokenizer = Tokenizer::FromFile(dir + "/tokenizer.json", extras);
  if (absl::IsNotFound(tokenizer.status())) return text;
  if (!tokenizer.ok()) return InFile(dir, tokenizer.status());
  text.tokenizer = *std::move(tokenizer);
  text.eos_token_id = text.tokenizer->TokenId(config.eos_token);
  if (choice->json.empty()) return text;
  auto chat = ChatFormat::FromJson(choice->json, *text.tokenizer);
  if (!chat.ok()) {
    return InFile(dir, absl::InvalidArgumentError(
                           absl::StrCat(choice->name, ": ", chat.status().message(),
                                        choice->name == kOwnFormat ? "" : "; see --chat-format")));
  }
  text.chat = *std::move(chat);
  text.chat_name = choice->name;
  return text;
}

}  // namespace anabranch
