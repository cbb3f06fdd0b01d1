// Any bytes as tokenizer_config.json, as chat_template.json and as a chat template. Whatever is
// recognised must give a format that is JSON with nothing left to fill in.
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/match.h"
#include "runtime/chat_formats.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer_config.h"

namespace anabranch {
namespace {

void CheckFormat(const std::string& name, const TokenizerConfig& config) {
  const auto format = NamedChatFormat(name, config);
  if (!format.ok()) return;
  const auto json = tokenizer::ParseJson(*format, name);
  if (!json.ok() || json->contains("variants") || !json->contains("turns")) __builtin_trap();
}

void Check(absl::string_view text) {
  ParseChatTemplateFile(text, "chat_template.json").IgnoreError();
  TokenizerConfig config;
  config.chat_template = std::string(text);
  if (const auto name = RecogniseChatTemplate(text); name.ok()) CheckFormat(*name, config);
  auto parsed = ParseTokenizerConfig(text);
  if (!parsed.ok()) return;
  for (const std::string& name : ChatFormatNames()) CheckFormat(name, *parsed);
}

}  // namespace
}  // namespace anabranch

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  anabranch::Check({reinterpret_cast<const char*>(data), size});
  return 0;
}
