// Tokenizers and random text that the tests of text and tokens share.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "runtime/tokenizer.h"
#include "runtime/tokenizer/byte_level.h"
#include "runtime/tokenizer/utf8.h"

namespace anabranch {

inline std::unique_ptr<Tokenizer> LoadOrNull(const std::string& path) {
  auto loaded = Tokenizer::FromFile(path);
  return loaded.ok() ? *std::move(loaded) : nullptr;
}

// The embedded default model's tokenizer: digits one by one, byte level, 4096 tokens.
inline std::unique_ptr<Tokenizer> PilotTokenizer() {
  return LoadOrNull(ANABRANCH_RECALL_DIR "/tokenizer.json");
}
inline std::unique_ptr<Tokenizer> LlamaTokenizer() {
  return LoadOrNull(ANABRANCH_GOLDEN_DIR "/tokenizers/llama2/tokenizer.json");
}

// A byte-level tokenizer.json with a token for each byte, "h e", "he l", and <|end|> as id 300.
inline nlohmann::json SmallTokenizerJson() {
  nlohmann::json vocab = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte) {
    std::string token;
    tokenizer::AppendByteLevel(std::string(1, static_cast<char>(byte)), &token);
    vocab[token] = byte;
  }
  vocab["he"] = 256;
  vocab["hel"] = 257;
  const nlohmann::json level = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  return {{"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"h e", "he l"}}}},
          {"pre_tokenizer", level},
          {"decoder", level},
          {"added_tokens",
           nlohmann::json::array({{{"id", 300}, {"content", "<|end|>"}, {"special", true}}})}};
}

// Valid UTF-8 with letters, digits, spaces, marks, CJK, emoji with joiners and any code point.
inline std::string RandomText(std::mt19937* random, int max_characters) {
  static const std::vector<std::string> kCommon = {" ",
                                                   "  ",
                                                   "\n",
                                                   "\r\n",
                                                   "\t",
                                                   "the",
                                                   "'s",
                                                   "He",
                                                   "12",
                                                   "...",
                                                   "\xC3\xA9",
                                                   "e\xCC\x81",
                                                   "\xE6\x97\xA5\xE6\x9C\xAC",
                                                   "\xF0\x9F\x91\x8D",
                                                   "\xF0\x9F\x91\xA8\xE2\x80\x8D\xF0\x9F\x91\xA9",
                                                   "\xC2\xA0",
                                                   "\xE3\x80\x80",
                                                   "\xCC\xA3\xCC\x81",
                                                   "<|end|>",
                                                   "_",
                                                   std::string(1, '\0')};
  std::string text;
  const auto count = (*random)() % static_cast<unsigned>(max_characters + 1);
  for (unsigned i = 0; i < count; ++i) {
    if ((*random)() % 4 != 0) {
      text += kCommon[(*random)() % kCommon.size()];
      continue;
    }
    char32_t c = (*random)() % 0x110000;
    if (c >= 0xD800 && c < 0xE000) c = 'x';  // surrogates are no characters
    tokenizer::AppendCodePoint(c, &text);
  }
  return text;
}

}  // namespace anabranch
