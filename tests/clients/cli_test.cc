// Commands of `anabranch`, run in process against an in-process server.
#include "clients/cli/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/clients/fake_server.h"

namespace anabranch::cli {
namespace {

using ::nlohmann::json;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;

struct Outcome {
  int code;
  std::string out;
  std::string err;
};

Outcome RunAt(const std::string& address, std::vector<std::string> args, const std::string& in = "",
              bool terminal = false) {
  std::istringstream input(in);
  std::ostringstream out, err;
  args.insert(args.begin(), {"--addr", address});
  int code = RunCli(args, {.in = input, .out = out, .err = err, .out_terminal = terminal});
  return {code, out.str(), err.str()};
}

std::vector<json> Lines(const std::string& text) {
  std::vector<json> values;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    values.push_back(json::parse(line));
  }
  return values;
}

class CliTest : public ::testing::Test {
 protected:
  Outcome Run(std::vector<std::string> args, const std::string& in = "", bool terminal = false) {
    return RunAt(server_.address(), std::move(args), in, terminal);
  }
  testing::FakeServer server_;
};

TEST_F(CliTest, SessionsOpenWithAHistoryOfTextOrMessages) {
  Outcome text = Run({"session", "create", "t", "--history", "-"}, "All I know.");
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_EQ(server_.sessions.TextOf("t"), "All I know.");
  EXPECT_THAT(text.err, HasSubstr("reused 0"));
  const std::string messages = R"([{"role": "user", "text": "Hi."}])";
  Outcome chat = Run({"session", "create", "m", "--messages", "-"}, messages);
  EXPECT_EQ(chat.code, 0) << chat.err;
  EXPECT_EQ(server_.sessions.TextOf("m"), "[user]Hi.\n");
  for (const char* wrong : {"{}", "[1]", "[{\"role\": \"user\"}]", "nothing"}) {
    Outcome refused = Run({"session", "create", "w", "--messages", "-"}, wrong);
    EXPECT_EQ(refused.code, 2);
    EXPECT_THAT(refused.err, HasSubstr("is not a JSON list of"));
  }
}

TEST_F(CliTest, AskPrintsTheReplyAndCommits) {
  Outcome ask = Run({"ask", "notes", "Where?"});
  EXPECT_EQ(ask.code, 0) << ask.err;
  EXPECT_EQ(ask.out, "The river forks here.\n");
  EXPECT_THAT(ask.err, IsEmpty());
  EXPECT_EQ(server_.sessions.TextOf("notes"), "[user]Where?\nThe river forks here.");
  EXPECT_EQ(server_.sessions.refs().count("notes"), 1u);
}

TEST_F(CliTest, ForkNamesItsSessionsAndRewindTellsTheCostFirst) {
  ASSERT_EQ(Run({"append", "notes", "one two"}).code, 0);
  Outcome fork = Run({"fork", "notes", "-n", "2"});
  EXPECT_EQ(fork.code, 0) << fork.err;
  EXPECT_EQ(fork.out, "notes/1\nnotes/2\n");
  EXPECT_EQ(Run({"fork", "notes", "--as", "left", "--as", "right"}).out, "left\nright\n");
  EXPECT_THAT(Run({"fork", "absent"}).err, HasSubstr("no session and no ref named absent"));
  EXPECT_NE(Run({"fork", "notes", "-n", "2", "--as", "left"}).code, 0);
  EXPECT_THAT(Run({"rewind", "left", "--to", "3", "--dry-run"}).out, HasSubstr("would drop"));
  EXPECT_EQ(server_.sessions.TextOf("left"), "[user]one two\n");
  EXPECT_THAT(Run({"rewind", "left", "--to=-4"}).out, HasSubstr("dropped"));
  EXPECT_EQ(server_.sessions.TextOf("left"), "[user]one ");
}

TEST_F(CliTest, AskOnATerminalStreamsTheSameText) {
  EXPECT_EQ(Run({"ask", "notes", "Where?"}, "", true).out, "The river forks here.\n");
}

TEST_F(CliTest, AskContinuesFromTheRefOfAClosedSession) {
  ASSERT_EQ(Run({"ask", "notes", "one"}).code, 0);
  ASSERT_EQ(Run({"session", "close", "notes"}).code, 0);
  Outcome ask = Run({"ask", "notes", "two", "--usage"});
  EXPECT_EQ(ask.code, 0) << ask.err;
  EXPECT_THAT(ask.err, HasSubstr("reused 31,"));
  EXPECT_THAT(server_.sessions.TextOf("notes"), HasSubstr("[user]one\n"));
}

TEST_F(CliTest, AskAsJsonStreamsDeltasAndEndsWithTheWholeTurn) {
  Outcome ask = Run({"ask", "notes", "-", "--json"}, "Where?");
  std::vector<json> lines = Lines(ask.out);
  ASSERT_EQ(lines.size(), 4u) << ask.out;
  EXPECT_EQ(lines[0], json({{"type", "delta"}, {"text", "The river "}}));
  const json& done = lines[3];
  EXPECT_EQ(done["type"], "done");
  EXPECT_EQ(done["text"], "The river forks here.");
  EXPECT_EQ(done["finish_reason"], "FINISH_REASON_END");
  EXPECT_EQ(done["usage"]["tokens_read"], 13);
  EXPECT_EQ(done["usage"]["tokens_generated"], 21);
  EXPECT_EQ(done["usage"]["tokens_replayed"], 0);
  EXPECT_EQ(done["session"]["token_count"], 34);
}

TEST_F(CliTest, FlagsMayStandAnywhereAndTakeOneValue) {
  Outcome ask = Run({"ask", "--stop", "x", "--seed", "7", "notes", "--stop", "y", "Where?"});
  EXPECT_EQ(ask.code, 0) << ask.err;
  EXPECT_THAT(server_.sessions.TextOf("notes"), StartsWith("[user]Where?\n"));
  EXPECT_EQ(Run({"ask", "notes", "--", "--dashes"}).code, 0);
  EXPECT_THAT(server_.sessions.TextOf("notes"), HasSubstr("[user]--dashes\n"));
}

TEST_F(CliTest, RepliesCannotControlTheTerminal) {
  ASSERT_EQ(Run({"append", "n", "--raw", "a\x1b[2Jb\xc2\x9b"}).code, 0);
  EXPECT_THAT(Run({"session", "show", "n", "--text"}, "", true).out, Not(HasSubstr("\x1b")));
  EXPECT_EQ(Run({"session", "show", "n", "--text"}).out, "a\x1b[2Jb\xc2\x9b") << "pipes get it all";
}

TEST_F(CliTest, AppendReadsAPipeInPiecesCutAtLineEnds) {
  std::string line = std::string(999, 'x') + "\n", text;
  while (text.size() < (7u << 20)) text += line;
  Outcome append = Run({"append", "big", "-", "--raw"}, text);
  EXPECT_EQ(append.code, 0) << append.err;
  EXPECT_EQ(server_.faults.chunks, 3);
  EXPECT_EQ(server_.sessions.TextOf("big"), text);
  EXPECT_THAT(append.out, StartsWith("big: read 7,341,000 tokens, 7,341,000 in all, state st-"));
}

TEST_F(CliTest, AppendRefusesAMessageThatDoesNotFit) {
  Outcome append = Run({"append", "big", "-"}, std::string(4 << 20, 'x'));
  EXPECT_EQ(append.code, 2);
  EXPECT_THAT(append.err, HasSubstr("--raw"));
}

TEST_F(CliTest, AppendRefusesBadInputBeforeItOpensASession) {
  EXPECT_THAT(Run({"append", "n", "-"}, "abc\xff").err, HasSubstr("offset 3"));
  EXPECT_THAT(Run({"append", "n", "-"}, "").err, HasSubstr("is empty"));
  EXPECT_THAT(Run({"append", "n", "--file", "/does/not/exist"}).err, HasSubstr("cannot open"));
  EXPECT_THAT(Run({"append", "n", "--file", "/"}).err, HasSubstr("cannot read /"));
  EXPECT_THAT(Run({"append", "n", "text", "--file", "x"}).err, HasSubstr("not both"));
  EXPECT_EQ(server_.faults.calls, 0);
}

TEST_F(CliTest, AppendCanLeaveTheRefAlone) {
  ASSERT_EQ(Run({"append", "n", "text", "--role", "system", "--no-commit"}).code, 0);
  EXPECT_EQ(server_.sessions.TextOf("n"), "[system]text\n");
  EXPECT_TRUE(server_.sessions.refs().empty());
}

TEST_F(CliTest, SessionsAreCreatedListedShownAndClosed) {
  ASSERT_EQ(Run({"append", "a", "text"}).code, 0);
  Outcome create = Run({"session", "create", "b", "--from", "a", "--label", "k=v=w", "--json"});
  ASSERT_EQ(create.code, 0) << create.err;
  EXPECT_EQ(Lines(create.out)[0]["session"]["labels"]["k"], "v=w");
  EXPECT_EQ(Lines(create.out)[0]["usage"]["tokens_reused"], 11);
  Outcome list = Run({"session", "ls"});
  EXPECT_THAT(list.out, StartsWith("SESSION  TOKENS  REF"));
  EXPECT_THAT(list.out, HasSubstr("\nb            11  b "));
  EXPECT_THAT(Run({"session", "show", "a"}).out, HasSubstr("tokens       11\n"));
  EXPECT_EQ(Run({"session", "show", "a", "--text"}).out, "[user]text\n");
  EXPECT_EQ(Run({"session", "close", "a", "b"}).code, 0);
  EXPECT_THAT(Run({"session", "ls"}).out, IsEmpty());
}

TEST_F(CliTest, StatesAndRefsAreShownAndMoved) {
  ASSERT_EQ(Run({"append", "a", "text"}).code, 0);
  std::string id = server_.sessions.refs()["a"].state_id();
  EXPECT_THAT(Run({"state", "show", "a"}).out, HasSubstr(id));
  EXPECT_THAT(Run({"state", "ls"}).out, HasSubstr("1.5 KiB"));
  EXPECT_EQ(Run({"ref", "set", "copy", "a"}).out, absl::StrCat("copy -> ", id, "\n"));
  EXPECT_EQ(Run({"ref", "set", "copy2", id}).code, 0);
  EXPECT_EQ(Lines(Run({"--json", "ref", "ls"}).out).size(), 3u);
}

TEST_F(CliTest, SearchShowsWhatWasFoundAndWhy) {
  Run({"ask", "a", "the heron"});
  const Outcome found = Run({"search", "heron", "--rerank", "4"});
  EXPECT_EQ(found.code, 0) << found.err;
  EXPECT_THAT(found.out, HasSubstr("WORDS"));
  EXPECT_THAT(found.out, HasSubstr("1.50 #1"));
  EXPECT_THAT(found.out, HasSubstr("2.50"));
  EXPECT_THAT(found.out, HasSubstr("the heron"));
  EXPECT_THAT(Run({"search", "heron", "--rerank", "off"}).out, Not(HasSubstr("2.50")));
  const Outcome none = Run({"search", "ostrich"});
  EXPECT_EQ(none.out, "");
  EXPECT_THAT(none.err, HasSubstr("nothing found in 1 states"));
  EXPECT_THAT(Run({"search", "heron", "--json"}).out, HasSubstr("\"lexical_rank\":1"));
  for (const std::vector<std::string>& bad : {std::vector<std::string>{"search"},
                                              {"search", "x", "--like", "y"},
                                              {"search", "x", "--rerank", "few"},
                                              {"search", "x", "--label", "y"},
                                              {"search", "x", "--since", "soon"},
                                              {"search", "x", "-k", "0"}}) {
    EXPECT_EQ(Run(bad).code, 2) << ::testing::PrintToString(bad);
  }
  EXPECT_EQ(Run({"search", "heron", "--since", "36h", "--until", "2999-01-31"}).code, 0);
}

TEST_F(CliTest, StatusShowsHumanNumbersAndJsonExactOnes) {
  EXPECT_THAT(Run({"status"}).out, HasSubstr("1,234,567 states"));
  EXPECT_EQ(Lines(Run({"status", "--json"}).out)[0]["library"]["states"], 1234567);
}

TEST_F(CliTest, ServerErrorsExitWith1AndNameTheReason) {
  Outcome show = Run({"session", "show", "nobody"});
  EXPECT_EQ(show.code, 1);
  EXPECT_EQ(show.err, "anabranch: no session nobody (NOT_FOUND, NO_SUCH_NAME)\n");
  EXPECT_THAT(show.out, IsEmpty());
}

TEST_F(CliTest, ErrorsAsJsonAreForPrograms) {
  Outcome show = Run({"session", "show", "nobody", "--json"});
  EXPECT_EQ(show.code, 1);
  EXPECT_EQ(Lines(show.err)[0]["error"], json({{"code", "NOT_FOUND"},
                                               {"reason", "NO_SUCH_NAME"},
                                               {"message", "no session nobody"},
                                               {"exit_code", 1}}));
}

TEST_F(CliTest, ATurnCountsReusedTokensOnce) {
  ASSERT_EQ(Run({"ask", "notes", "one"}).code, 0);
  std::vector<json> lines = Lines(Run({"ask", "notes", "two", "--json"}).out);
  EXPECT_EQ(lines.back()["usage"]["tokens_reused"], 31);
}

TEST_F(CliTest, ChatReadsLinesFromAPipe) {
  Outcome chat = Run({"chat", "n"}, "one\n\ntwo\n/quit\nthree\n");
  EXPECT_EQ(chat.code, 0) << chat.err;
  EXPECT_EQ(chat.out, "The river forks here.\nThe river forks here.\n");
  EXPECT_THAT(server_.sessions.TextOf("n"), Not(HasSubstr("three")));
}

TEST_F(CliTest, ChatFromAPipeFailsWithTheFirstTurnThatFails) {
  server_.faults.break_after_deltas = 1;
  Outcome chat = Run({"chat", "n"}, "one\ntwo\n");
  EXPECT_EQ(chat.code, 3);
  EXPECT_THAT(server_.sessions.TextOf("n"), Not(HasSubstr("two")));
}

TEST(CliWithoutServerTest, UnreachableServerExitsWith3AndSaysWhatToDo) {
  Outcome status = RunAt("127.0.0.1:1", {"status"});
  EXPECT_EQ(status.code, 3);
  EXPECT_THAT(status.err, MatchesRegex("anabranch: no server answers at 127.0.0.1:1: [^\n]*"
                                       "./deploy/serve[^\n]*\n"));
}

TEST(CliWithoutServerTest, WrongCommandLinesExitWith2) {
  const std::vector<std::vector<std::string>> wrong = {
      {"bogus"},
      {"ask"},
      {"ask", "n"},
      {"session"},
      {"session", "bogus"},
      {"status", "--bogus"},
      {"status", "--addr", "nowhere"},
      {"status", "--addr", ":1"},
      {"status", "--addr", "h:99999"},
      {"status", "--timeout", "-1"},
      {"ask", "n", "t", "--top-p", "2"},
      {"ask", "n", "\xff"},
      {"append", "n", "t", "--raw", "--role", "user"},
      {"completion", "csh"},
      {"session", "create", "n", "--label", "novalue"},
      {"session", "create", "n", "--history", "/nonexistent"},
      {"session", "create", "n", "--history", "-"},
      {"session", "create", "n", "--history", "-", "--from", "a"},
      {"session", "create", "n", "--history", "-", "--messages", "-"}};
  for (const auto& args : wrong) {
    std::istringstream in;
    std::ostringstream out, err;
    EXPECT_EQ(RunCli(args, {.in = in, .out = out, .err = err}), 2) << args[0] << ": " << err.str();
    EXPECT_THAT(err.str(), StartsWith("anabranch: "));
    EXPECT_EQ(out.str(), "");
  }
}

TEST(CliWithoutServerTest, UnknownCommandsAreNamed) {
  EXPECT_THAT(RunAt("h:1", {"bogus"}).err, HasSubstr("'bogus'"));
  EXPECT_THAT(RunAt("h:1", {"session", "bogus"}).err, HasSubstr("'bogus'"));
}

TEST(CliWithoutServerTest, CompletionKnowsEveryCommandAndFlag) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    std::string script = RunAt("h:1", {"completion", shell}).out;
    for (const char* word :
         {"append", "session", "create", "log", "no-commit", "top-p", "timeout"}) {
      EXPECT_THAT(script, HasSubstr(word)) << shell;
    }
  }
}

}  // namespace
}  // namespace anabranch::cli
