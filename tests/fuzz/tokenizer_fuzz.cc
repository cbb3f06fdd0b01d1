// Any bytes as text (encode, decode, stream) and as tokenizer.json. Text that is valid UTF-8 comes
// back from a byte-level tokenizer as it was; other bytes are refused. Loading arbitrary JSON must
// end with a status.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "runtime/text_stream.h"
#include "runtime/tokenizer.h"
#include "runtime/tokenizer/byte_level.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/utf8.h"

namespace anabranch {
namespace {

std::unique_ptr<Tokenizer> MakeByteTokenizer() {
  tokenizer::Json vocab = tokenizer::Json::object();
  for (int byte = 0; byte < 256; ++byte) {
    std::string token;
    tokenizer::AppendByteLevel(std::string(1, static_cast<char>(byte)), &token);
    vocab[token] = byte;
  }
  vocab["he"] = 256;
  const tokenizer::Json level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  const tokenizer::Json json = {
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"h e"}}}},
      {"pre_tokenizer", level},
      {"decoder", level},
      {"added_tokens", {{{"id", 257}, {"content", "<|end|>"}, {"special", true}}}}};
  auto made = Tokenizer::FromJson(json.dump());
  if (!made.ok()) __builtin_trap();
  return *std::move(made);
}

void CheckText(const Tokenizer& tokenizer, absl::string_view text) {
  const bool is_valid = tokenizer::ValidUtf8Length(text) == text.size();
  const auto ids = tokenizer.Encode(text, Tokenizer::EncodeOptions{});
  if (ids.ok() != is_valid) __builtin_trap();
  if (!ids.ok()) return;
  if (tokenizer.Decode(*ids, /*skip_special=*/false) != text) __builtin_trap();
  TextStream stream(tokenizer, {});
  std::string streamed;
  for (const int32_t id : *ids) {
    const TextStream::Delta delta = stream.Push(id);
    if (tokenizer::ValidUtf8Length(delta.text) != delta.text.size()) __builtin_trap();
    streamed += delta.text;
  }
  streamed += stream.Finish();
  if (streamed != tokenizer.Decode(*ids, /*skip_special=*/true)) __builtin_trap();
}

}  // namespace
}  // namespace anabranch

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::unique_ptr<anabranch::Tokenizer> tokenizer = anabranch::MakeByteTokenizer();
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  anabranch::CheckText(*tokenizer, bytes);
  const auto loaded = anabranch::Tokenizer::FromJson(bytes);
  if (loaded.ok()) {
    const auto ids = (*loaded)->Encode("hello <|end|> world 123", {});
    if (ids.ok()) (*loaded)->Decode(*ids, /*skip_special=*/false);
  }
  return 0;
}
