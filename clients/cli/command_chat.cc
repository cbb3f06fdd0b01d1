// `anabranch chat NAME`: a conversation at the terminal.
#include <memory>
#include <ostream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/format.h"
#include "clients/cli/interrupt.h"
#include "clients/cli/json_output.h"
#include "clients/cli/line_editor.h"
#include "clients/cli/sampling_flags.h"
#include "clients/cli/text_input.h"
#include "clients/cli/turn.h"
#include "clients/cli/turn_output.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

constexpr char kHelp[] =
    "/usage   what the last turn and the whole chat cost\n"
    "/commit  keep the session as it is under its ref (every finished turn does so by itself)\n"
    "/help    this list\n"
    "/quit    leave (also Ctrl-D)\n"
    "Ctrl-C   stop the running reply; what was said stays in the session";

struct ChatFlags {
  SessionFlags session;
  SamplingFlags sampling;
};

class Chat {
 public:
  Chat(Cli& cli, const ChatFlags& flags)
      : cli_(cli), flags_(flags), people_(!cli.options.json && cli.streams.in_terminal) {}

  absl::Status Run() {
    v1::Usage opening;
    ANABRANCH_ASSIGN_OR_RETURN(v1::Session session,
                               OpenSession(cli_.client(), flags_.session, opening));
    if (people_) {
      cli_.streams.err << session.id() << ": " << HumanCount(session.token_count())
                       << " tokens so far. /help lists commands." << std::endl;
    }
    LineEditor editor(cli_.streams.in, cli_.streams.in_terminal);
    absl::Status last;  // without a terminal a failed turn ends the chat: nobody would see it
    while (last.ok() || people_) {
      LineEditor::Line line = editor.Read("> ");
      if (line.kind == LineEditor::Kind::kEnd) break;
      absl::string_view text = absl::StripAsciiWhitespace(line.text);
      if (line.kind == LineEditor::Kind::kInterrupted || text.empty()) continue;
      if (text == "/quit" || text == "/exit") return absl::OkStatus();
      last = text[0] == '/' ? Command(text) : Say(std::string(text));
      if (!last.ok() && people_) Explain(last);
    }
    if (people_) cli_.streams.out << std::endl;
    return people_ ? absl::OkStatus() : last;
  }

 private:
  absl::Status Command(absl::string_view text) {
    std::ostream& err = cli_.streams.err;
    if (text == "/help") {
      err << kHelp << std::endl;
    } else if (text == "/usage") {
      err << "last turn: " << UsageLine(turn_usage_) << "\nthis chat: " << UsageLine(chat_usage_)
          << std::endl;
    } else if (text == "/commit") {
      ANABRANCH_ASSIGN_OR_RETURN(v1::CommitResponse commit,
                                 CommitSession(cli_.client(), flags_.session.name));
      err << "committed " << commit.state().id() << " at "
          << HumanCount(commit.state().token_count()) << " tokens" << std::endl;
    } else {
      return UsageError(absl::StrCat("there is no command ", text, "; /help lists them"));
    }
    return absl::OkStatus();
  }

  absl::Status Say(const std::string& text) {
    ANABRANCH_RETURN_IF_ERROR(CheckUtf8(text, "the line"));
    std::ostream& out = cli_.streams.out;
    const bool json = cli_.options.json;
    Cancellation cancel;
    InterruptScope interrupt(cancel);
    TurnOptions options;
    options.generate = flags_.sampling.Request();
    options.cancel = &cancel;
    bool streamed = false;
    options.on_delta = [&](const v1::GenerateDelta& delta) {
      streamed = true;
      if (json) {
        PrintJson({{"type", "delta"}, {"text", delta.text()}}, out);
      } else {
        out << (cli_.streams.out_terminal ? Printable(delta.text()) : delta.text()) << std::flush;
      }
    };
    absl::StatusOr<TurnResult> turn = RunTurn(cli_.client(), flags_.session, text, options);
    if (!json && streamed) out << std::endl;
    ANABRANCH_RETURN_IF_ERROR(turn.status());
    if (!json && !streamed) out << turn->reply.text() << std::endl;
    turn_usage_ = turn->usage;
    AddUsage(turn->usage, chat_usage_);
    if (json) PrintJson(TurnJson(*turn), out);
    return absl::OkStatus();
  }

  void Explain(const absl::Status& status) {
    std::ostream& err = cli_.streams.err;
    err << "anabranch: " << ErrorLine(status, cli_.options.address) << std::endl;
    if (ExitCode(status) == kExitUnreachable) {
      err << "The session keeps what it has read; go on when the server is back." << std::endl;
    }
  }

  Cli& cli_;
  const ChatFlags& flags_;
  const bool people_;  // a person types; otherwise a program writes lines
  v1::Usage turn_usage_;
  v1::Usage chat_usage_;
};

}  // namespace

void AddChatCommand(CLI::App& app, Cli& cli) {
  auto flags = std::make_shared<ChatFlags>();
  CLI::App* chat = app.add_subcommand("chat", "Talk in a session; each line is a message");
  chat->footer(absl::StrCat("While chatting:\n", kHelp));
  AddSessionFlags(*chat, flags->session);
  flags->sampling.AddTo(*chat);
  chat->callback(
      [&cli, flags] { cli.command = [flags](Cli& c) { return Chat(c, *flags).Run(); }; });
}

}  // namespace anabranch::cli
