#include "runtime/text_stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/runtime/text_fixtures.h"

namespace anabranch {
namespace {

struct Streamed {
  std::string text, stop_string;
  bool all_valid = true;
  size_t tokens = 0;  // pushed until it stopped
};

Streamed Stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                const std::vector<std::string>& stops) {
  TextStream stream(tokenizer, stops);
  Streamed result;
  for (const int32_t id : ids) {
    const TextStream::Delta delta = stream.Push(id);
    result.text += delta.text;
    result.all_valid &= tokenizer::ValidUtf8Length(delta.text) == delta.text.size();
    ++result.tokens;
    result.stop_string = delta.stop_string;
    if (delta.stopped) break;
  }
  result.text += stream.Finish();
  return result;
}

std::vector<int32_t> Ids(const Tokenizer& tokenizer, absl::string_view text) {
  const auto ids = tokenizer.Encode(text, {});
  return ids.ok() ? *ids : std::vector<int32_t>{};
}

// A tokenizer whose tokens are single bytes, so that text can be cut anywhere.
std::unique_ptr<Tokenizer> ByteTokenizer() {
  nlohmann::json config = SmallTokenizerJson();
  config["model"]["merges"] = nlohmann::json::array();
  auto made = Tokenizer::FromJson(config.dump());
  return made.ok() ? *std::move(made) : nullptr;
}

TEST(TextStreamTest, DeltasTogetherAreTheDecodedText) {
  std::mt19937 random(4);
  for (const auto& tokenizer : {PilotTokenizer(), ByteTokenizer(), LlamaTokenizer()}) {
    ASSERT_NE(tokenizer, nullptr);
    for (int i = 0; i < 500; ++i) {
      const std::vector<int32_t> ids = Ids(*tokenizer, RandomText(&random, 20));
      const Streamed streamed = Stream(*tokenizer, ids, {"never seen"});
      ASSERT_EQ(streamed.text, tokenizer->Decode(ids, /*skip_special=*/true));
      ASSERT_TRUE(streamed.all_valid);
    }
  }
}

TEST(TextStreamTest, RandomTokensGiveValidTextToo) {
  const auto tokenizer = PilotTokenizer();
  ASSERT_NE(tokenizer, nullptr);
  std::mt19937 random(5);
  for (int i = 0; i < 500; ++i) {
    std::vector<int32_t> ids(random() % 30);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % 4200) - 50;
    const Streamed streamed = Stream(*tokenizer, ids, {});
    ASSERT_EQ(streamed.text, tokenizer->Decode(ids, /*skip_special=*/true));
    ASSERT_TRUE(streamed.all_valid);
  }
}

TEST(TextStreamTest, CharactersAreNeverSplit) {
  const auto tokenizer = ByteTokenizer();
  TextStream stream(*tokenizer, {});
  EXPECT_EQ(stream.Push(0xF0).text, "");
  EXPECT_EQ(stream.Push(0x9F).text, "");
  EXPECT_EQ(stream.Push(0x91).text, "");
  EXPECT_EQ(stream.Push(0x8D).text, "\xF0\x9F\x91\x8D");
  EXPECT_EQ(stream.Push(0xC3).text, "");
  EXPECT_EQ(stream.Finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.Finish(), "");
}

TEST(TextStreamTest, SpecialTokensGiveNoText) {
  const auto tokenizer = ByteTokenizer();
  EXPECT_EQ(Stream(*tokenizer, {'a', 300, 'b'}, {}).text, "ab");
}

TEST(TextStreamTest, TextThatMayBecomeAStopStringIsHeldBack) {
  const auto tokenizer = ByteTokenizer();
  TextStream stream(*tokenizer, {"abc"});
  EXPECT_EQ(stream.Push('x').text, "x");
  EXPECT_EQ(stream.Push('a').text, "");
  EXPECT_EQ(stream.Push('b').text, "");
  EXPECT_EQ(stream.Push('a').text, "ab");  // "ab" was not the beginning after all, "a" may be
  EXPECT_EQ(stream.Finish(), "a");
}

TEST(TextStreamTest, AStopStringEndsTheTextBeforeIt) {
  const auto tokenizer = ByteTokenizer();
  TextStream stream(*tokenizer, {"", "\n\n"});
  EXPECT_EQ(stream.Push('a').text, "a");
  EXPECT_FALSE(stream.Push('\n').stopped);
  const TextStream::Delta end = stream.Push('\n');
  EXPECT_TRUE(end.stopped);
  EXPECT_EQ(end.text, "");
  EXPECT_EQ(end.stop_string, "\n\n");
  EXPECT_EQ(stream.Push('b').text, "");
  EXPECT_TRUE(stream.Push('b').stopped);
  EXPECT_EQ(stream.Finish(), "");
}

// The text before the stop string that ends first, found without streaming.
std::string TextBeforeStop(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (end >= stop.size() && text.compare(end - stop.size(), stop.size(), stop) == 0) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return text.substr(0, end - longest);
  }
  return text;
}

TEST(TextStreamTest, StopStringsAreFoundHoweverTheTextIsCut) {
  const auto bytes = ByteTokenizer();
  const auto pilot = PilotTokenizer();
  ASSERT_NE(pilot, nullptr);
  const std::vector<std::string> stops = {"abcd", "bc", "aab",
                                          "\xC3\xA9"
                                          "a",
                                          "the end"};
  std::mt19937 random(6);
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    for (unsigned n = random() % 12; n > 0; --n) {
      text +=
          std::vector<std::string>{"a", "b", "c", "d", "\xC3\xA9", " the", " end"}[random() % 7];
    }
    const std::string expected = TextBeforeStop(text, stops);
    ASSERT_EQ(Stream(*bytes, Ids(*bytes, text), stops).text, expected) << text;
    ASSERT_EQ(Stream(*pilot, Ids(*pilot, text), stops).text, expected) << text;
  }
}

}  // namespace
}  // namespace anabranch
