// The text side of a model folder: its tokenizer, and how it wants messages written.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/chat_format.h"
#include "runtime/tokenizer.h"

namespace anabranch {

struct ModelText {
  std::unique_ptr<Tokenizer> tokenizer;  // null: the folder has no tokenizer.json
  std::optional<ChatFormat> chat;        // uses `tokenizer`
  std::string chat_name;                 // "chat_format.json", a name of chat_formats, or "none"
  std::optional<int32_t> eos_token_id;   // of tokenizer_config.json
};

// Reads tokenizer.json and decides the chat format: the one named `chat_format`; if that is empty,
// the folder's chat_format.json; else the one that the folder's chat template is written in
// (chat_template.jinja, tokenizer_config.json or chat_template.json, the first that has one); none
// if there is no template, or no tokenizer. The name "none" asks for none.
//
// INVALID_ARGUMENT names the file and what is wrong in it; for a template that is not recognised
// and a format whose tokens the tokenizer lacks it says what to choose instead.
absl::StatusOr<ModelText> LoadModelText(const std::string& dir, const std::string& chat_format);

}  // namespace anabranch
