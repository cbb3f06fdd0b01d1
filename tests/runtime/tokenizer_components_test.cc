// Each component of tokenizer.json against the reference implementation. components.json has one
// small model and, for each tokenizer built on it, what differs and what the reference answers.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "runtime/tokenizer.h"
#include "runtime/tokenizer/json_fields.h"

namespace anabranch {
namespace {

using Json = nlohmann::json;

Json ReadComponents() {
  const auto text =
      tokenizer::ReadSmallFile(ANABRANCH_GOLDEN_DIR "/tokenizers/components.json", 16 << 20);
  return text.ok() ? Json::parse(*text, nullptr, false) : Json();
}

Json TokenizerJson(const Json& file, const Json& config) {
  Json json = {{"model", file["model"]}};
  json["model"].update(config["model"]);
  for (const char* part :
       {"added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    json[part] = config[part];
  }
  return json;
}

TEST(TokenizerComponentsTest, EachComponentWorksAsInTheReference) {
  const Json file = ReadComponents();
  ASSERT_TRUE(file.is_object());
  ASSERT_GT(file["tokenizers"].size(), 30u);
  for (const Json& config : file["tokenizers"]) {
    SCOPED_TRACE(config["name"].get<std::string>());
    const auto tokenizer = Tokenizer::FromJson(TokenizerJson(file, config).dump());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    for (const Json& golden : config["cases"]) {
      const auto text = golden["text"].get<std::string>();
      SCOPED_TRACE(text);
      Tokenizer::EncodeOptions options;
      const auto plain = (*tokenizer)->Encode(text, options);
      ASSERT_TRUE(plain.ok()) << plain.status();
      EXPECT_EQ(Json(*plain), golden["ids_plain"]);
      options.add_special_tokens = true;
      const auto ids = (*tokenizer)->Encode(text, options);
      ASSERT_TRUE(ids.ok()) << ids.status();
      EXPECT_EQ(Json(*ids), golden["ids"]);
      EXPECT_EQ((*tokenizer)->Decode(*ids, /*skip_special=*/true),
                golden["decoded"].get<std::string>());
    }
  }
}

}  // namespace
}  // namespace anabranch
