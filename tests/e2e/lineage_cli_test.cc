// The commands about lineage against a real server: log, mark, rewind, edit, graph, state show.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <utility>

#include "nlohmann/json.hpp"
#include "tests/e2e/cli_run.h"
#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

using testing::HasSubstr;
using testing::Not;

class LineageCliTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server = Server::Start(TestConfig(GoldenModel("mamba2"), dir_.path()));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<TestClient>(server_->address());
    ASSERT_EQ(Run({"session", "create", "ada", "--every", "16"}), 0) << err_;
    ASSERT_TRUE(client_->AppendTokens("ada", SomeTokens(100, 1)).has_done);
    ASSERT_EQ(Run({"mark", "ada", "start"}), 0) << err_;
    ASSERT_TRUE(client_->AppendTokens("ada", SomeTokens(100, 2)).has_done);
  }
  int Run(std::vector<std::string> args) {
    CliRun run = RunCli(*server_, std::move(args));
    out_ = std::move(run.out);
    err_ = std::move(run.err);
    return run.code;
  }
  std::string File(const std::string& name) const { return dir_.path() + "/" + name; }
  static std::string Read(const std::string& path) {
    std::ostringstream content;
    content << std::ifstream(path).rdbuf();
    return content.str();
  }

  TempDir dir_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<TestClient> client_;
  std::string out_, err_;
};

TEST_F(LineageCliTest, ALogTellsWhereToGoAndWhatItCosts) {
  ASSERT_EQ(Run({"log", "ada"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("ada/marks/start"));
  EXPECT_THAT(out_, HasSubstr("turn"));
  EXPECT_THAT(out_, HasSubstr("start  -"));
  ASSERT_EQ(Run({"log", "ada", "--at", "105"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("to replay     5\n"));
  ASSERT_EQ(Run({"log", "ada", "--at", "105", "--json"}), 0) << err_;
  EXPECT_EQ(nlohmann::json::parse(out_)["tokens_to_replay"], 5);
  EXPECT_EQ(Run({"log", "ada", "--at", "201"}), 2);
  EXPECT_THAT(err_, HasSubstr("between 0 and 200"));
  ASSERT_EQ(Run({"log", "ada", "--json", "-n", "1"}), 0) << err_;
  EXPECT_EQ(nlohmann::json::parse(out_)["state"]["token_count"], 200);
  EXPECT_EQ(Run({"log", "nobody"}), 1);
  EXPECT_THAT(err_, HasSubstr("no session and no ref named nobody"));
}

TEST_F(LineageCliTest, AuxiliaryStatesGoIntoASessionAndOut) {
  ASSERT_EQ(Run({"session", "create", "skill"}), 0) << err_;
  ASSERT_TRUE(client_->AppendTokens("skill", SomeTokens(40, 3)).has_done);
  ASSERT_EQ(Run({"mark", "skill", "known"}), 0) << err_;
  ASSERT_EQ(Run({"session", "create", "x", "--from", "ada/marks/start", "--aux",
                 "skill/marks/known=0.5"}),
            0)
      << err_;
  EXPECT_THAT(out_, HasSubstr("skill/marks/known (0.5)"));
  ASSERT_TRUE(client_->AppendTokens("x", SomeTokens(10, 4)).has_done);
  ASSERT_EQ(Run({"session", "aux", "x"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("base tokens  140\n"));
  EXPECT_THAT(out_, HasSubstr("own tokens   10\n"));
  ASSERT_EQ(Run({"session", "aux", "x", "--drop", "skill/marks/known"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("base tokens  100\n"));
  EXPECT_THAT(err_, HasSubstr("reused 110"));
  ASSERT_EQ(Run({"log", "x"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("swap"));
  EXPECT_EQ(Run({"log", "x", "--at", "105"}), 2);
  EXPECT_THAT(err_, HasSubstr("inside a computed state"));
  ASSERT_EQ(Run({"session", "aux", "x", "--add", "skill/marks/known", "--json"}), 0) << err_;
  EXPECT_EQ(nlohmann::json::parse(out_)["session"]["aux"][0]["weight"], 1);
  ASSERT_EQ(Run({"session", "aux", "x", "--clear"}), 0) << err_;
  EXPECT_EQ(Run({"session", "aux", "x", "--add", "skill/marks/known=0"}), 2);
  EXPECT_THAT(err_, HasSubstr("above 0"));
  EXPECT_EQ(Run({"session", "aux", "x", "--show", "--clear"}), 2);
}

TEST_F(LineageCliTest, MarksAreGoneBackToByName) {
  ASSERT_EQ(Run({"rewind", "ada", "--to", "start"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("keeps         100\n"));
  EXPECT_THAT(out_, HasSubstr("to replay     0\n"));
  EXPECT_EQ(client_->SessionTokens("ada"), SomeTokens(100, 1));
  EXPECT_EQ(Run({"rewind", "ada", "--to", "nowhere"}), 2);  // not a number either
  EXPECT_THAT(err_, HasSubstr("anabranch log ada"));
}

TEST_F(LineageCliTest, AnEditThatFailsNamesTheOldLine) {
  // This model has no tokenizer.
  EXPECT_EQ(Run({"edit", "ada", "--at", "100", "--raw", "--text", "else"}), 1);
  EXPECT_THAT(err_, HasSubstr("ada/marks/before-edit-200"));
  ASSERT_EQ(Run({"log", "ada/marks/before-edit-200", "--at", "200"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("to replay     0\n"));
}

TEST_F(LineageCliTest, PoliciesAreShownAndChanged) {
  ASSERT_EQ(Run({"session", "policy", "ada", "--every", "64", "--max-states", "3"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("turn ends, every 64 tokens, the grid thinned, at most 3 states"));
  EXPECT_EQ(Run({"session", "policy", "ada", "--every", "7"}), 1);
  EXPECT_THAT(err_, HasSubstr("checkpoints.every"));
}

TEST_F(LineageCliTest, GraphsAreDrawnInTheTerminalAndInFiles) {
  ASSERT_EQ(Run({"fork", "ada", "--as", "ben"}), 0) << err_;
  ASSERT_TRUE(client_->AppendTokens("ben", {1, 2, 3}).has_done);
  ASSERT_TRUE(client_->AppendTokens("ada", {4, 5}).has_done);
  ASSERT_EQ(Run({"graph", "ada"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("├─╯"));
  EXPECT_THAT(out_, HasSubstr("(ben)"));
  EXPECT_THAT(out_, HasSubstr("states from"));  // the grid is folded
  ASSERT_EQ(Run({"graph", "ada", "--ancestors", "--no-fold"}), 0) << err_;
  EXPECT_THAT(out_, Not(HasSubstr("(ben)")));
  EXPECT_THAT(out_, Not(HasSubstr("states from")));
  ASSERT_EQ(Run({"graph", "-o", File("all.svg")}), 0) << err_;
  const std::string svg = Read(File("all.svg"));
  EXPECT_THAT(svg, HasSubstr("ada/marks/start"));
  EXPECT_THAT(svg, HasSubstr("prefers-color-scheme:dark"));
  ASSERT_EQ(Run({"graph", "-o", File("again.svg")}), 0) << err_;
  EXPECT_EQ(Read(File("again.svg")), svg);
  EXPECT_EQ(Run({"graph", "-o", File("no/such/folder.svg")}), 2);
}

TEST_F(LineageCliTest, NormsAreDrawnInTheTerminalAndInFiles) {
  ASSERT_EQ(Run({"state", "show", "ada/marks/start", "--plot"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("100 tokens"));
  EXPECT_THAT(out_, HasSubstr("recurrent [8, 16, 16]: norm of each head\nlayer   0  "));
  ASSERT_EQ(Run({"state", "show", "ada/marks/start", "--svg", File("norms.svg")}), 0) << err_;
  EXPECT_THAT(Read(File("norms.svg")), HasSubstr("</svg>"));
  ASSERT_EQ(Run({"state", "show", "ada/marks/start", "--plot", "--json"}), 0) << err_;
  EXPECT_EQ(nlohmann::json::parse(out_)["tensors"][0]["layer"], 0);
}

TEST_F(LineageCliTest, StatesAreKeptSmallerArchivedAndBroughtBack) {
  ASSERT_EQ(Run({"state", "recode", "ada/marks/start", "--codec", "near"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("near ("));
  EXPECT_THAT(out_, HasSubstr("relative error"));
  ASSERT_EQ(Run({"state", "archive", "ada/marks/start"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("0 B, archive ("));
  ASSERT_EQ(Run({"state", "show", "ada/marks/start"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("archive"));
  EXPECT_THAT(out_, HasSubstr("exact function"));
  ASSERT_EQ(Run({"state", "ls"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("CODEC"));
  ASSERT_EQ(Run({"state", "recode", "ada/marks/start", "--codec", "exact"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("tokens read again"));
  ASSERT_EQ(Run({"session", "policy", "ada", "--codec", "compact"}), 0) << err_;
  EXPECT_THAT(out_ + err_, HasSubstr("kept compact"));
  ASSERT_EQ(Run({"status"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("state codec"));
  EXPECT_NE(Run({"state", "recode", "ada", "--codec", "tiny"}), 0);
}

}  // namespace
}  // namespace anabranch
