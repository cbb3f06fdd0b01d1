// tokenizer_config.json, and the chat template files beside it: what a model folder says about its
// text beyond tokenizer.json. Pure functions of the text.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/tokenizer/added_tokens.h"

namespace anabranch {

struct TokenizerConfig {
  std::string bos_token, eos_token;  // empty: none
  std::string chat_template;         // Jinja source; empty: none
  // "added_tokens_decoder": tokens that tokenizer.json may lack.
  std::vector<tokenizer::AddedToken> added_tokens;
};

// Tokens are strings or objects with "content". A chat_template may be a list of {name, template}:
// the one named "default" is taken, or the only one. INVALID_ARGUMENT names the field.
absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(absl::string_view json);

// chat_template.json: an object whose "chat_template" is as above. `file` names it in messages.
absl::StatusOr<std::string> ParseChatTemplateFile(absl::string_view json, absl::string_view file);

}  // namespace anabranch
