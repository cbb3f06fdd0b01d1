// `anabranch delegate` against a real server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "tests/e2e/cli_run.h"
#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

using testing::HasSubstr;

class CliDelegateTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server = Server::Start(TestConfig(RecallModel(), dir_.path()));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    ASSERT_EQ(Run({"ask", "ada", "My name is Ada."}).code, 0);
  }
  CliRun Run(std::vector<std::string> args, const std::string& in = "") {
    return RunCli(*server_, std::move(args), in);
  }

  TempDir dir_;
  std::unique_ptr<Server> server_;
};

TEST_F(CliDelegateTest, PrintsWhatEachBranchSays) {
  const CliRun two = Run({"delegate", "ada", "--input", "What is my name?", "--inputs", "-"},
                         "\nWhat is my locker code?\r\n");
  EXPECT_EQ(two.code, 0) << two.err;
  EXPECT_THAT(two.out, HasSubstr("1\tYour name is Ada.\n"));
  EXPECT_THAT(two.out, HasSubstr("2\t"));
  EXPECT_THAT(Run({"session", "ls"}).out, testing::Not(HasSubstr("ada/1")));
}

TEST_F(CliDelegateTest, KeepsTheBestAndSpeaksJson) {
  const CliRun best = Run({"delegate", "ada", "--input", "What is my name?", "--input",
                           "What is my name?", "--policy", "best", "--prefix", "x", "--json"});
  EXPECT_EQ(best.code, 0) << best.err;
  std::istringstream lines(best.out);
  nlohmann::json last;
  int results = 0;
  for (std::string line; std::getline(lines, line);) {
    last = nlohmann::json::parse(line);
    results += last["type"] == "result";
  }
  EXPECT_EQ(results, 2);
  EXPECT_EQ(last["type"], "done");
  ASSERT_EQ(last["kept"].size(), 1);
  EXPECT_EQ(last["kept"][0]["session"]["id"], "x/1");
}

TEST_F(CliDelegateTest, SaysWhatIsWrong) {
  EXPECT_THAT(Run({"delegate", "ada"}).err, HasSubstr("no inputs"));
  EXPECT_THAT(Run({"delegate", "absent", "--input", "x"}).err,
              HasSubstr("no session and no ref named absent"));
  EXPECT_THAT(Run({"delegate", "ada", "--inputs", "/nowhere"}).err, HasSubstr("/nowhere"));
  EXPECT_THAT(Run({"delegate", "ada", "--input", "x", "--keep", "2"}).err, HasSubstr("BEST"));
  const CliRun late = Run({"delegate", "ada", "--input", "Tell me a long story.", "--time-limit",
                           "0.001", "--max-tokens", "4000"});
  EXPECT_EQ(late.code, 1);
  EXPECT_THAT(late.err, HasSubstr("1 of 1 branches failed"));
}

}  // namespace
}  // namespace anabranch
