// A model folder as model hubs have it: a tokenizer, a chat template, no file of ours.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "runtime/tokenizer/byte_level.h"
#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

using nlohmann::json;

constexpr char kChatml[] =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}";

class HubFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* file : {"config.json", "model.safetensors"}) {
      std::filesystem::copy_file(GoldenModel("mamba2") + "/" + file, model_.path() + "/" + file);
    }
    // All bytes but 0xFF, which no text has, and two control tokens: 257 tokens.
    json vocab = json::object();
    for (int byte = 0; byte < 255; ++byte) {
      std::string token;
      tokenizer::AppendByteLevel(std::string(1, static_cast<char>(byte)), &token);
      vocab[token] = byte;
    }
    const json level = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
    const json added = {{{"id", 255}, {"content", "<|im_start|>"}, {"special", true}},
                        {{"id", 256}, {"content", "<|im_end|>"}, {"special", true}}};
    Write("tokenizer.json", {{"model", {{"vocab", vocab}, {"merges", json::array()}}},
                             {"pre_tokenizer", level},
                             {"decoder", level},
                             {"added_tokens", added}});
    WriteTemplate(kChatml);
  }

  void Write(const std::string& name, const json& content) {
    std::ofstream(model_.path() + "/" + name) << content.dump();
  }
  void WriteTemplate(const std::string& chat_template) {
    Write("tokenizer_config.json", {{"eos_token", "<|im_end|>"}, {"chat_template", chat_template}});
  }
  CommandResult Serve(const std::vector<std::string>& flags) {
    std::vector<std::string> arguments = {"serve",       "--model",    model_.path(),
                                          "--data",      data_.path(), "--listen",
                                          "127.0.0.1:0", "--metrics",  "off"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return RunAnabranchd(arguments);
  }

  TempDir model_, data_;
};

v1::AppendRequest Said(const std::vector<std::pair<std::string, std::string>>& messages) {
  v1::AppendRequest request;
  request.set_session_id("a");
  for (const auto& [role, text] : messages) {
    v1::Message* message = request.mutable_content()->mutable_messages()->add_messages();
    message->set_role(role);
    message->set_text(text);
  }
  return request;
}

TEST_F(HubFolderTest, MessagesAreWrittenAsItsChatTemplateWritesThem) {
  auto server = Server::Start(TestConfig(model_.path(), data_.path()));
  ASSERT_TRUE(server.ok()) << server.status();
  TestClient client((*server)->address());
  EXPECT_TRUE(client.Status().model().chat());
  client.MustCreate("a");
  ASSERT_TRUE(client.Append({Said({{"system", "S"}, {"user", "U<|im_end|>"}})}).has_done);
  v1::GenerateRequest generate;
  generate.set_session_id("a");
  generate.set_reply(true);
  generate.set_max_tokens(3);
  generate.set_ignore_eos(true);
  const GenerateResult reply = client.Generate(generate);
  ASSERT_TRUE(reply.has_done) << reply.status.error_message();
  ASSERT_TRUE(client.Append({Said({{"user", "V"}})}).has_done);

  v1::GetTokensRequest request;
  request.set_session_id("a");
  request.set_text_only(true);
  v1::GetTokensResponse response;
  ASSERT_TRUE(client.states().GetTokens(TestClient::Context().get(), request, &response).ok());
  const std::string text = response.text();
  const std::string before =
      "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|><|im_end|>\n"
      "<|im_start|>assistant\n";
  const std::string after = "<|im_end|>\n<|im_start|>user\nV<|im_end|>\n";
  EXPECT_EQ(text.substr(0, before.size()), before);
  ASSERT_GT(text.size(), after.size());
  EXPECT_EQ(text.substr(text.size() - after.size()), after);
}

TEST_F(HubFolderTest, AnUnknownTemplateIsRefusedAtStartWithTheFlagToUse) {
  WriteTemplate("{{ messages }}");
  CommandResult result = Serve({"--log-level", "off"});
  EXPECT_EQ(result.exit_status, 1);
  EXPECT_NE(result.output.find("--chat-format chatml|"), std::string::npos) << result.output;
  result = Serve({"--log-level", "off", "--chat-format", "llama3"});
  EXPECT_EQ(result.exit_status, 1);
  EXPECT_NE(result.output.find("no special token '<|begin_of_text|>'"), std::string::npos)
      << result.output;
}

TEST_F(HubFolderTest, WithoutAFormatTextIsServedAndMessagesAreRefused) {
  WriteTemplate("{{ messages }}");
  ServerConfig config = TestConfig(model_.path(), data_.path());
  config.chat_format = "none";
  auto server = Server::Start(config);
  ASSERT_TRUE(server.ok()) << server.status();
  TestClient client((*server)->address());
  client.MustCreate("a");
  v1::AppendRequest text;
  text.set_session_id("a");
  *text.mutable_content() = TextContent("plain text");
  EXPECT_TRUE(client.Append({text}).has_done);
  EXPECT_EQ(ReasonOf(client.Append({Said({{"user", "x"}})}).status), "NO_CHAT_FORMAT");
}

TEST_F(HubFolderTest, AModelFileTruncatedUnderAServerEndsItWithoutHarmToTheLibrary) {
  const std::string weights = model_.path() + "/model.safetensors";
  {
    ServerProcess server(model_.path(), data_.path());
    ASSERT_FALSE(server.address().empty());
    TestClient client(server.address());
    client.MustCreate("a");
    ASSERT_TRUE(client.Append({Said({{"user", "kept"}})}).has_done);
    std::filesystem::resize_file(weights, 0);
    EXPECT_FALSE(client.Append({Said({{"user", "lost"}})}).has_done);
    EXPECT_EQ(server.Wait(), -1);  // by SIGBUS
  }
  EXPECT_EQ(Serve({"--log-level", "off"}).exit_status, 1);
  std::filesystem::copy_file(GoldenModel("mamba2") + "/model.safetensors", weights,
                             std::filesystem::copy_options::overwrite_existing);
  ServerProcess server(model_.path(), data_.path());
  ASSERT_FALSE(server.address().empty());
  TestClient client(server.address());
  EXPECT_TRUE(client.Append({Said({{"user", "again"}})}).has_done);
}

}  // namespace
}  // namespace anabranch
