// Model files that were made to do harm. Each one in tests/golden/hostile_files.json is refused
// with a message that names its fault, and no parser takes much more memory than the file has.
// A case is a "text", or a "header" (with its true length unless "length" says another) and so
// many bytes of "data"; texts may be lists of parts, some of them repeated
// or in hexadecimal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <string>

#include "absl/strings/escaping.h"
#include "runtime/chat_format.h"
#include "runtime/chat_formats.h"
#include "runtime/model_config.h"
#include "runtime/safetensors.h"
#include "runtime/tokenizer.h"
#include "runtime/tokenizer_config.h"
#include "tests/runtime/model_files.h"

namespace {

std::atomic<size_t> live_bytes{0}, peak_bytes{0};

void* Counted(void* block) {
  const size_t live = live_bytes += malloc_usable_size(block);
  size_t peak = peak_bytes;
  while (live > peak && !peak_bytes.compare_exchange_weak(peak, live)) {
  }
  return block;
}

void Uncounted(void* block) {
  if (block == nullptr) return;
  live_bytes -= malloc_usable_size(block);
  std::free(block);
}

}  // namespace

void* operator new(size_t bytes) {
  void* block = std::malloc(bytes);
  if (block == nullptr) throw std::bad_alloc();
  return Counted(block);
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  void* block = std::malloc(bytes);
  return block == nullptr ? nullptr : Counted(block);
}
void operator delete(void* block) noexcept { Uncounted(block); }
void operator delete(void* block, size_t) noexcept { Uncounted(block); }

namespace anabranch {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr size_t kAllowance = 1 << 20;
constexpr char kGoodConfig[] =
    R"({"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 1, "vocab_size": 16})";
constexpr char kGoodTokenizer[] =
    R"({"model": {"vocab": {"a": 0, "b": 1}, "merges": []}, "added_tokens": []})";

std::string Expanded(const json& text) {
  if (text.is_string()) return text;
  if (text.is_array()) {
    std::string all;
    for (const json& part : text) all += Expanded(part);
    return all;
  }
  if (text.contains("hex")) return absl::HexStringToBytes(text["hex"].get<std::string>());
  std::string all;
  for (int i = 0; i < text["times"]; ++i) all += text["repeat"].get<std::string>();
  return all;
}

std::string FileBytes(const json& entry) {
  if (entry.contains("text")) return Expanded(entry["text"]);
  const std::string header = Expanded(entry["header"]);
  std::string bytes = testing::WithHeader(header, std::string(entry["data"].get<int>(), '\0'));
  if (entry.contains("length")) {
    const uint64_t length = std::stoull(entry["length"].get<std::string>());
    std::memcpy(bytes.data(), &length, sizeof(length));
  }
  return bytes;
}

absl::Status Parse(const std::string& file, const std::string& bytes, const Tokenizer& tokenizer) {
  if (file == "model.safetensors") {
    return ParseSafetensors({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()})
        .status();
  }
  if (file == "model.safetensors.index.json") return ParseShardIndex(bytes).status();
  if (file == "config.json") return ParseModelConfig(bytes, "").status();
  if (file == "generation_config.json") return ParseModelConfig(kGoodConfig, bytes).status();
  if (file == "tokenizer.json") return Tokenizer::FromJson(bytes).status();
  if (file == "chat_format.json") return ChatFormat::FromJson(bytes, tokenizer).status();
  EXPECT_EQ(file, "tokenizer_config.json");
  const auto config = ParseTokenizerConfig(bytes);
  return config.ok() ? RecogniseChatTemplate(config->chat_template).status() : config.status();
}

TEST(HostileFilesTest, AreRefusedWithTheirFaultAndWithoutMuchMemory) {
  const json cases =
      json::parse(testing::ReadWholeFile(ANABRANCH_GOLDEN_DIR "/hostile_files.json"));
  const auto tokenizer = Tokenizer::FromJson(kGoodTokenizer);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ASSERT_TRUE(ParseModelConfig(kGoodConfig, "").ok());
  size_t most = 0;
  for (const json& entry : cases) {
    const std::string file = entry["file"], fault = entry["fault"], says = entry["says"];
    SCOPED_TRACE(file + ": " + fault);
    const std::string bytes = FileBytes(entry);
    const size_t before = live_bytes;
    peak_bytes = before;
    const absl::Status status = Parse(file, bytes, **tokenizer);
    const size_t taken = peak_bytes - before;
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), HasSubstr(says));
    EXPECT_LE(taken, bytes.size() + kAllowance);
    EXPECT_LT(status.message().size(), 1000u);
    most = std::max(most, taken);
  }
  EXPECT_GE(cases.size(), 60u);
  std::printf("%zu hostile files refused; the hungriest took %zu KiB\n", cases.size(), most >> 10);
}

}  // namespace
}  // namespace anabranch
