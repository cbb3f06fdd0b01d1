#include "runtime/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/runtime/text_fixtures.h"

namespace anabranch {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<int32_t> Ids(const Tokenizer& tokenizer, absl::string_view text,
                         bool parse_special = true) {
  Tokenizer::EncodeOptions options;
  options.parse_special_tokens = parse_special;
  const auto ids = tokenizer.Encode(text, options);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : std::vector<int32_t>{-1};
}

std::unique_ptr<Tokenizer> Small(const json& changes = json::object()) {
  json config = SmallTokenizerJson();
  config.merge_patch(changes);
  auto made = Tokenizer::FromJson(config.dump());
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *std::move(made) : nullptr;
}

// The message with which a changed tokenizer.json is refused.
std::string Refusal(const json& config) {
  const auto made = Tokenizer::FromJson(config.dump());
  if (made.ok()) return "accepted";
  EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument) << made.status();
  return std::string(made.status().message());
}
std::string RefusalOf(const char* part, const json& value) {
  json config = SmallTokenizerJson();
  config[part] = value;
  return Refusal(config);
}
std::string RefusalOfModel(const char* field, const json& value) {
  json config = SmallTokenizerJson();
  config["model"][field] = value;
  return Refusal(config);
}

TEST(TokenizerTest, DecodingWhatWasEncodedGivesTheText) {
  const auto tokenizer = PilotTokenizer();
  ASSERT_NE(tokenizer, nullptr);
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = RandomText(&random, 40);
    SCOPED_TRACE(text);
    EXPECT_EQ(tokenizer->Decode(Ids(*tokenizer, text), /*skip_special=*/false), text);
    EXPECT_EQ(tokenizer->Decode(Ids(*tokenizer, text, false), /*skip_special=*/true), text);
  }
}

TEST(TokenizerTest, SpecialTokensOfTheTextAreTokensOnlyIfAskedFor) {
  const auto tokenizer = PilotTokenizer();
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_THAT(Ids(*tokenizer, "<|user|><|end|>"), ElementsAre(1, 3));
  for (const int32_t id : Ids(*tokenizer, "a<|user|>b<|end|>", /*parse_special=*/false)) {
    EXPECT_FALSE(tokenizer->IsSpecial(id)) << id;
  }
}

TEST(TokenizerTest, NeitherMergesNorWholeWordsMakeASpecialTokenFromText) {
  for (const bool ignore_merges : {true, false}) {
    const json vocab = {{"<", 0}, {"s", 1}, {">", 2}, {"<s", 3}, {"<s>", 4}};
    const json merges = json::array({"< s", "<s >"});
    const json config = {
        {"model", {{"vocab", vocab}, {"merges", merges}, {"ignore_merges", ignore_merges}}},
        {"added_tokens", json::array({{{"id", 4}, {"content", "<s>"}, {"special", true}}})}};
    const auto tokenizer = Tokenizer::FromJson(config.dump());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    EXPECT_THAT(Ids(**tokenizer, "<s>"), ElementsAre(4));
    EXPECT_THAT(Ids(**tokenizer, "<s>", /*parse_special=*/false), ElementsAre(3, 2));
  }
}

TEST(TokenizerTest, InvalidUtf8IsRefusedWithItsOffset) {
  const auto tokenizer = Small();
  for (const absl::string_view bad :
       {"abc\xFFx", "abc\xC3", "abc\xED\xA0\x80", "abc\xC0\x80", "abc\xF4\x90\x80\x80"}) {
    const auto ids = tokenizer->Encode(bad, {});
    EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(ids.status().message()), HasSubstr("at byte 3"));
  }
}

TEST(TokenizerTest, NulBytesAreText) {
  const auto tokenizer = Small();
  EXPECT_THAT(Ids(*tokenizer, absl::string_view("\0he\0", 4)), ElementsAre(0, 256, 0));
}

TEST(TokenizerTest, IdsOutsideTheVocabularyAreSkipped) {
  const auto tokenizer = Small();
  EXPECT_EQ(tokenizer->vocab_size(), 301);
  EXPECT_EQ(tokenizer->Decode({-1, 256, 299, 301, 1 << 30, 'x'}, false), "hex");
  EXPECT_EQ(tokenizer->TokenBytes(-1), "");
  EXPECT_EQ(tokenizer->TokenBytes(299), "");
  EXPECT_FALSE(tokenizer->IsSpecial(1 << 30));
  EXPECT_EQ(tokenizer->TokenId("<|end|>"), 300);
  EXPECT_EQ(tokenizer->TokenId("nothing"), std::nullopt);
}

TEST(TokenizerTest, BrokenCharactersDecodeToReplacementCharacters) {
  const auto tokenizer = Small();
  // An unfinished character, then a finished one; a byte that begins nothing.
  EXPECT_EQ(tokenizer->Decode({0xE6, 0x97, 'a', 0xC3, 0xA9, 0xFF}, false),
            "\xEF\xBF\xBD"
            "a\xC3\xA9\xEF\xBF\xBD");
}

TEST(TokenizerTest, LongWordsTakeLittleTime) {
  const auto tokenizer = PilotTokenizer();
  ASSERT_NE(tokenizer, nullptr);
  // Quadratic merging of these would take hours.
  for (const std::string& text :
       {std::string(1 << 20, 'a'), std::string(1 << 20, ' '), std::string(1 << 20, '\n') + "x"}) {
    EXPECT_EQ(tokenizer->Decode(Ids(*tokenizer, text), false), text);
  }
}

TEST(TokenizerTest, LongRunsOfMarksAreNormalizedInLittleTime) {
  const auto tokenizer = Small({{"normalizer", {{"type", "NFC"}}}});
  std::string text = "a";
  for (int i = 0; i < 100'000; ++i) text += i % 2 == 0 ? "\xCC\x81" : "\xCC\xA3";
  const std::string normalized = tokenizer->Decode(Ids(*tokenizer, text), false);
  EXPECT_EQ(normalized.substr(0, 3), "\xE1\xBA\xA1");  // a with the dot below
}

TEST(TokenizerTest, PatternsThatRunAwayAreRefusedNotWaitedFor) {
  const auto tokenizer = Small({{"pre_tokenizer",
                                 {{"type", "Split"},
                                  {"pattern", {{"Regex", "(a+)+$"}}},
                                  {"behavior", "Isolated"},
                                  {"invert", false}}}});
  const auto ids = tokenizer->Encode(std::string(60, 'a') + "b", {});
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(ids.status().message()), HasSubstr("cannot be split"));
}

TEST(TokenizerTest, FilesThatAreNotATokenizerAreRefused) {
  for (const absl::string_view text : {"", "{", "[]", "null", "{\"model\": \"\xFF\"}"}) {
    EXPECT_EQ(Tokenizer::FromJson(text).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_THAT(Refusal(json::object()), HasSubstr("'model' is missing"));
  EXPECT_EQ(Tokenizer::FromFile("/nonexistent/tokenizer.json").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_FALSE(Tokenizer::FromFile("/").ok());
}

TEST(TokenizerTest, DeeplyNestedJsonIsRefused) {
  EXPECT_FALSE(Tokenizer::FromJson(std::string(1'000'000, '[')).ok());
}

TEST(TokenizerTest, UnsupportedComponentsAreNamed) {
  EXPECT_THAT(RefusalOf("normalizer", {{"type", "BertNormalizer"}}),
              HasSubstr("unsupported normalizer 'BertNormalizer'"));
  EXPECT_THAT(RefusalOf("pre_tokenizer", {{"type", "BertPreTokenizer"}}),
              HasSubstr("unsupported pre_tokenizer 'BertPreTokenizer'"));
  EXPECT_THAT(RefusalOf("decoder", {{"type", "WordPiece"}}),
              HasSubstr("unsupported decoder 'WordPiece'"));
  EXPECT_THAT(RefusalOf("post_processor", {{"type", "RobertaProcessing"}}),
              HasSubstr("unsupported post_processor 'RobertaProcessing'"));
  EXPECT_THAT(RefusalOfModel("type", "Unigram"), HasSubstr("unsupported model 'Unigram'"));
  EXPECT_THAT(RefusalOfModel("end_of_word_suffix", "</w>"), HasSubstr("end_of_word_suffix"));
  EXPECT_THAT(RefusalOfModel("dropout", 0.1), HasSubstr("dropout"));
  const json nested = {{"type", "Sequence"}, {"normalizers", json::array()}};
  EXPECT_THAT(
      RefusalOf("normalizer", {{"type", "Sequence"}, {"normalizers", json::array({nested})}}),
      HasSubstr("unsupported normalizer 'Sequence'"));
}

TEST(TokenizerTest, MalformedComponentsAreNamed) {
  EXPECT_THAT(RefusalOf("normalizer", 5), HasSubstr("normalizer"));
  EXPECT_THAT(RefusalOf("normalizer", {{"type", "Prepend"}, {"prepend", 1}}),
              HasSubstr("'prepend' must be a string"));
  const auto split = [](const json& pattern, const char* behavior) {
    return json{{"type", "Split"}, {"pattern", pattern}, {"behavior", behavior}, {"invert", false}};
  };
  EXPECT_THAT(RefusalOf("pre_tokenizer", split({{"Regex", "(a"}}, "Isolated")),
              HasSubstr("regular expression '(a'"));
  EXPECT_THAT(RefusalOf("pre_tokenizer", split({{"Regex", "a"}}, "Sometimes")),
              HasSubstr("behavior 'Sometimes'"));
  EXPECT_THAT(RefusalOf("pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", "yes"}}),
              HasSubstr("'add_prefix_space' must be true or false"));
}

TEST(TokenizerTest, BadVocabulariesAndMergesAreRefused) {
  EXPECT_THAT(RefusalOfModel("vocab", json::object()), HasSubstr("vocab"));
  EXPECT_THAT(RefusalOfModel("vocab", {{"a", -1}}), HasSubstr("id of 'a'"));
  EXPECT_THAT(RefusalOfModel("vocab", {{"a", 4'000'001}}), HasSubstr("id of 'a'"));
  EXPECT_THAT(RefusalOfModel("vocab", {{"a", 1.5}}), HasSubstr("id of 'a'"));
  EXPECT_THAT(RefusalOfModel("vocab", {{"a", 1}, {"b", 1}}), HasSubstr("two tokens have id 1"));
  EXPECT_THAT(RefusalOfModel("merges", {"h zz"}), HasSubstr("not in the vocabulary"));
  EXPECT_THAT(RefusalOfModel("merges", {"h x"}), HasSubstr("not in the vocabulary"));
  EXPECT_THAT(RefusalOfModel("merges", {"he"}), HasSubstr("must be two tokens"));
  EXPECT_THAT(RefusalOfModel("merges", {"h e l"}), HasSubstr("must be two tokens"));
  EXPECT_THAT(RefusalOfModel("merges", json::array({json::array({"h", "e", "l"})})),
              HasSubstr("must be two tokens"));
  EXPECT_THAT(RefusalOfModel("merges", 3), HasSubstr("'merges' must be an array"));
  EXPECT_THAT(RefusalOfModel("unk_token", "<unk>"), HasSubstr("unk_token '<unk>'"));
}

TEST(TokenizerTest, BadAddedTokensAndTemplatesAreRefused) {
  const auto added = [](const json& token) {
    return RefusalOf("added_tokens", json::array({token}));
  };
  EXPECT_THAT(added({{"id", 5}, {"content", ""}}), HasSubstr("content"));
  EXPECT_THAT(added({{"id", 5}, {"content", std::string(2000, 'x')}}), HasSubstr("content"));
  EXPECT_THAT(added({{"id", -5}, {"content", "[X]"}}), HasSubstr("id of '[X]'"));
  EXPECT_THAT(added({{"content", "[X]"}}), HasSubstr("id of '[X]'"));
  EXPECT_THAT(added({{"id", 256}, {"content", "[X]"}}), HasSubstr("already taken"));
  EXPECT_THAT(added({{"id", 5}, {"content", "he"}}), HasSubstr("already taken"));
  EXPECT_THAT(RefusalOf("added_tokens", "x"), HasSubstr("added_tokens must be an array"));
  const auto with_template = [](int id, const json& single) {
    return RefusalOf("post_processor",
                     {{"type", "TemplateProcessing"},
                      {"single", single},
                      {"special_tokens", {{"<s>", {{"ids", json::array({id})}}}}}});
  };
  const json text = {{"Sequence", {{"id", "A"}}}}, start = {{"SpecialToken", {{"id", "<s>"}}}};
  EXPECT_EQ(with_template(300, json::array({start, text})), "accepted");
  EXPECT_THAT(with_template(301, json::array({start, text})), HasSubstr("outside the vocabulary"));
  EXPECT_THAT(with_template(300, json::array({start})), HasSubstr("no Sequence A"));
  EXPECT_THAT(with_template(300, json::array({text, text})), HasSubstr("one Sequence A"));
}

}  // namespace
}  // namespace anabranch
