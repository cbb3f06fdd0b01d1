// The chat formats that come with the server, by name: the files of runtime/chat_formats, embedded
// when it is built. A file is a chat format (runtime/chat_format.h) with four additions:
//   "template_has", "template_lacks": a model's chat template is written in this format if it
//       contains all of the first and none of the second. Neither: only chosen by name.
//   "variants": [{"if_template_has": [...], "set": {...}}]: where a template contains all of these,
//       the fields of "set" replace or extend the format's (JSON merge patch).
//   "{bos_token}", "{eos_token}" in any text: the tokens that tokenizer_config.json names. In
//       "stop" one that it does not name is left out, elsewhere it is an error.
// Templates are compared without white space around "+", with ' for " and message['content'] for
// message.content.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/tokenizer_config.h"

namespace anabranch {

// Sorted names, without "none".
std::vector<std::string> ChatFormatNames();

// The name of the format that `chat_template` is written in. INVALID_ARGUMENT if there is none, or
// more than one: lists what there is and the flag that chooses.
absl::StatusOr<std::string> RecogniseChatTemplate(absl::string_view chat_template);

// The format as JSON for ChatFormat::FromJson, made for a model with this config. INVALID_ARGUMENT
// for an unknown name (lists the known ones) and a token that the config does not name.
absl::StatusOr<std::string> NamedChatFormat(absl::string_view name, const TokenizerConfig& config);

}  // namespace anabranch
