// `anabranch append NAME [TEXT|--file F|-]`: reads text into a session.
#include <fstream>
#include <memory>
#include <ostream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/format.h"
#include "clients/cli/interrupt.h"
#include "clients/cli/json_output.h"
#include "clients/cli/progress_bar.h"
#include "clients/cli/text_input.h"
#include "clients/cli/turn.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

constexpr char kFooter[] =
    "Text is one message in the model's chat format (--role), or with --raw exactly what the\n"
    "model reads, special tokens included. Raw text above 3 MiB is sent in pieces cut at line\n"
    "ends, each encoded on its own, so the tokens right at a cut may differ from those of the\n"
    "whole text. A message may be at most 3 MiB.";

struct AppendFlags {
  SessionFlags session;
  std::string text;
  std::string file;
  std::string role = "user";
  bool raw = false;
  bool no_commit = false;
};

struct Source {
  std::unique_ptr<std::istream> owned;  // null for standard input
  std::string name;
};

absl::StatusOr<Source> OpenSource(const AppendFlags& flags, const CLI::Option& text_option) {
  if (!flags.file.empty() && flags.file != "-") {
    if (text_option.count() > 0) return UsageError("give TEXT or --file, not both");
    auto file = std::make_unique<std::ifstream>(flags.file, std::ios::binary);
    if (!*file) return UsageError(absl::StrCat("cannot open ", flags.file));
    file->peek();
    if (file->bad()) return UsageError(absl::StrCat("cannot read ", flags.file));
    return Source{std::move(file), flags.file};
  }
  if (text_option.count() > 0 && flags.text != "-") {
    return Source{std::make_unique<std::istringstream>(flags.text), "TEXT"};
  }
  return Source{nullptr, "standard input"};
}

v1::Content RawContent(std::string text) {
  v1::Content content;
  content.set_text(std::move(text));
  return content;
}

v1::Content MessageContent(const std::string& role, std::string text) {
  v1::Content content;
  v1::Message& message = *content.mutable_messages()->add_messages();
  message.set_role(role);
  message.set_text(std::move(text));
  return content;
}

// The first request's content, checked before anything is sent.
absl::StatusOr<v1::Content> FirstContent(const AppendFlags& flags, TextInput& input,
                                         const std::string& source_name) {
  ANABRANCH_ASSIGN_OR_RETURN(std::optional<std::string> piece, input.Next());
  if (!piece.has_value()) return UsageError(absl::StrCat(source_name, " is empty"));
  if (flags.raw) return RawContent(*std::move(piece));
  ANABRANCH_ASSIGN_OR_RETURN(std::optional<std::string> more, input.Next());
  if (more.has_value()) {
    return UsageError("one message may be at most 3 MiB: use --raw for longer text");
  }
  return MessageContent(flags.role, *std::move(piece));
}

void Report(Cli& cli, const v1::Session& session, const v1::Usage& usage) {
  if (cli.options.json) {
    PrintJson({{"type", "done"}, {"usage", ToJson(usage)}, {"session", ToJson(session)}},
              cli.streams.out);
    return;
  }
  cli.streams.out << session.id() << ": read " << HumanCount(usage.tokens_read()) << " tokens, "
                  << HumanCount(session.token_count()) << " in all";
  if (!session.head_state_id().empty()) cli.streams.out << ", state " << session.head_state_id();
  cli.streams.out << std::endl;
}

absl::Status Append(Cli& cli, const AppendFlags& flags, const CLI::Option& text_option) {
  ANABRANCH_ASSIGN_OR_RETURN(Source source, OpenSource(flags, text_option));
  if (source.owned == nullptr && cli.streams.in_terminal) {
    cli.streams.err << "reading standard input; end with Ctrl-D" << std::endl;
  }
  TextInput input(source.owned ? *source.owned : cli.streams.in, source.name);
  ANABRANCH_ASSIGN_OR_RETURN(v1::Content first, FirstContent(flags, input, source.name));

  Cancellation cancel;
  InterruptScope interrupt(cancel);
  v1::Usage usage;
  ANABRANCH_ASSIGN_OR_RETURN(v1::Session session, OpenSession(cli.client(), flags.session, usage));
  v1::AppendRequest request;
  request.set_session_id(flags.session.name);
  request.set_expected_token_count(session.token_count());
  *request.mutable_content() = std::move(first);
  ContentSource rest = [&]() -> absl::StatusOr<std::optional<v1::Content>> {
    ANABRANCH_ASSIGN_OR_RETURN(std::optional<std::string> piece, input.Next());
    if (!piece.has_value()) return std::nullopt;
    return RawContent(*std::move(piece));
  };
  absl::StatusOr<v1::AppendDone> done;
  {
    ProgressBar bar(cli.streams.err, cli.streams.err_terminal && !cli.options.json);
    done = cli.client().AppendFrom(
        request, rest,
        [&](const v1::AppendProgress& progress) {
          bar.Update(progress.tokens_read(), progress.tokens_total());
          if (cli.options.json) {
            PrintJson({{"type", "progress"}, {"progress", ToJson(progress)}}, cli.streams.out);
          }
        },
        &cancel);
  }
  ANABRANCH_RETURN_IF_ERROR(done.status());
  AddUsage(done->usage(), usage);
  session = done->session();
  if (!flags.no_commit) {
    ANABRANCH_ASSIGN_OR_RETURN(v1::CommitResponse commit,
                               CommitSession(cli.client(), flags.session.name, &cancel));
    v1::Usage capture = commit.usage();
    capture.clear_tokens_reused();  // what the append itself reused or read
    AddUsage(capture, usage);
    session = commit.session();
  }
  Report(cli, session, usage);
  return absl::OkStatus();
}

}  // namespace

void AddAppendCommand(CLI::App& app, Cli& cli) {
  auto flags = std::make_shared<AppendFlags>();
  CLI::App* append = app.add_subcommand("append", "Read text into a session; commits at the end");
  append->footer(kFooter);
  AddSessionFlags(*append, flags->session);
  CLI::Option* text =
      append->add_option("TEXT", flags->text, "Text to read; - or nothing reads standard input");
  append->add_option("--file,-f", flags->file, "Read this file (- is standard input)");
  CLI::Option* role =
      append->add_option("--role", flags->role, "Who says it")->capture_default_str();
  append->add_flag("--raw", flags->raw, "Raw text instead of a message")->excludes(role);
  append->add_flag("--no-commit", flags->no_commit, "Do not move the session's ref");
  append->callback([&cli, flags, text] {
    cli.command = [flags, text](Cli& c) { return Append(c, *flags, *text); };
  });
}

}  // namespace anabranch::cli
