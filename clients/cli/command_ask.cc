// `anabranch ask NAME TEXT`: one turn of a conversation.
#include <memory>
#include <ostream>

#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/format.h"
#include "clients/cli/interrupt.h"
#include "clients/cli/json_output.h"
#include "clients/cli/progress_bar.h"
#include "clients/cli/sampling_flags.h"
#include "clients/cli/text_input.h"
#include "clients/cli/turn.h"
#include "clients/cli/turn_output.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

struct AskFlags {
  SessionFlags session;
  std::string text;
  bool usage = false;
  SamplingFlags sampling;
};

absl::StatusOr<std::string> MessageText(Cli& cli, const std::string& text) {
  if (text != "-") {
    ANABRANCH_RETURN_IF_ERROR(CheckUtf8(text, "TEXT"));
    return text;
  }
  TextInput input(cli.streams.in, "standard input");
  ANABRANCH_ASSIGN_OR_RETURN(std::optional<std::string> piece, input.Next());
  if (!piece.has_value()) return UsageError("standard input is empty");
  ANABRANCH_ASSIGN_OR_RETURN(std::optional<std::string> more, input.Next());
  if (more.has_value()) return UsageError("one message may be at most 3 MiB");
  return *std::move(piece);
}

absl::Status Ask(Cli& cli, const AskFlags& flags) {
  ANABRANCH_ASSIGN_OR_RETURN(std::string text, MessageText(cli, flags.text));
  std::ostream& out = cli.streams.out;
  const bool json = cli.options.json;
  const bool stream = cli.streams.out_terminal && !json;
  Cancellation cancel;
  InterruptScope interrupt(cancel);
  auto bar = std::make_unique<ProgressBar>(cli.streams.err, cli.streams.err_terminal && !json);
  TurnOptions options;
  options.generate = flags.sampling.Request();
  options.cancel = &cancel;
  options.on_progress = [&](const v1::AppendProgress& progress) {
    bar->Update(progress.tokens_read(), progress.tokens_total());
  };
  options.on_delta = [&](const v1::GenerateDelta& delta) {
    bar.reset();
    if (stream) out << Printable(delta.text()) << std::flush;
    if (json) PrintJson({{"type", "delta"}, {"text", delta.text()}}, out);
  };
  absl::StatusOr<TurnResult> turn = RunTurn(cli.client(), flags.session, text, options);
  bar.reset();
  if (stream) out << std::endl;
  ANABRANCH_RETURN_IF_ERROR(turn.status());
  if (json) {
    PrintJson(TurnJson(*turn), out);
  } else if (!stream) {
    out << turn->reply.text() << std::endl;
  }
  if (flags.usage && !json) cli.streams.err << UsageLine(turn->usage) << std::endl;
  return absl::OkStatus();
}

}  // namespace

void AddAskCommand(CLI::App& app, Cli& cli) {
  auto flags = std::make_shared<AskFlags>();
  CLI::App* ask = app.add_subcommand(
      "ask", "Say something in a session and print the model's reply; commits at the end");
  AddSessionFlags(*ask, flags->session);
  ask->add_option("TEXT", flags->text, "The message; - reads standard input")->required();
  ask->add_flag("--usage", flags->usage, "Print what the turn cost to stderr");
  flags->sampling.AddTo(*ask);
  ask->callback([&cli, flags] { cli.command = [flags](Cli& c) { return Ask(c, *flags); }; });
}

}  // namespace anabranch::cli
