// `anabranch delegate`: branches from one point, each with a task of its own.
#include <fstream>
#include <map>
#include <memory>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/format.h"
#include "clients/cli/interrupt.h"
#include "clients/cli/json_output.h"
#include "clients/cli/named_source.h"
#include "clients/cli/sampling_flags.h"
#include "clients/cli/text_input.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

struct DelegateFlags {
  std::string source;
  std::vector<std::string> inputs;
  std::string file;
  bool raw = false, usage = false;
  v1::DelegatePolicy policy = v1::DELEGATE_POLICY_DROP;
  int keep = 0;
  std::string prefix;
  double time_limit = 0;
  SamplingFlags sampling;
};

const std::map<std::string, v1::DelegatePolicy>& Policies() {
  static const auto* policies =
      new std::map<std::string, v1::DelegatePolicy>{{"drop", v1::DELEGATE_POLICY_DROP},
                                                    {"keep", v1::DELEGATE_POLICY_KEEP},
                                                    {"best", v1::DELEGATE_POLICY_BEST}};
  return *policies;
}

// One input a line; empty lines do not count.
void ReadLines(std::istream& in, std::vector<std::string>* inputs) {
  std::string line;
  while (std::getline(in, line)) {
    absl::string_view text = absl::StripSuffix(line, "\r");
    if (!text.empty()) inputs->emplace_back(text);
  }
}

absl::StatusOr<std::vector<std::string>> Inputs(Cli& cli, const DelegateFlags& flags) {
  std::vector<std::string> inputs = flags.inputs;
  if (flags.file == "-") {
    ReadLines(cli.streams.in, &inputs);
  } else if (!flags.file.empty()) {
    std::ifstream in(flags.file);
    if (!in) return UsageError(absl::StrCat("cannot read ", flags.file));
    ReadLines(in, &inputs);
  }
  if (inputs.empty()) return UsageError("no inputs: give --input TEXT or --inputs FILE");
  for (size_t i = 0; i < inputs.size(); ++i) {
    ANABRANCH_RETURN_IF_ERROR(CheckUtf8(inputs[i], absl::StrCat("input ", i + 1)));
  }
  return inputs;
}

absl::StatusOr<v1::DelegateRequest> Request(Cli& cli, const DelegateFlags& flags) {
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<std::string> inputs, Inputs(cli, flags));
  v1::DelegateRequest request;
  for (const std::string& text : inputs) {
    v1::Content& content = *request.add_branches()->mutable_input();
    if (flags.raw) {
      content.set_text(text);
      continue;
    }
    v1::Message& message = *content.mutable_messages()->add_messages();
    message.set_role("user");
    message.set_text(text);
  }
  const v1::GenerateRequest generate = flags.sampling.Request();
  v1::BranchOptions& options = *request.mutable_options();
  *options.mutable_sampling() = generate.sampling();
  *options.mutable_stop() = generate.stop();
  options.set_max_tokens(generate.max_tokens());
  options.set_reply(!flags.raw);
  options.set_time_limit_ms(static_cast<int64_t>(flags.time_limit * 1000));
  request.set_policy(flags.policy);
  request.set_keep_best(flags.keep);
  request.set_prefix(flags.prefix);
  return request;
}

// Prints results as branches end, and how many have, while there is a terminal to show it.
class Printer {
 public:
  Printer(Cli& cli, int total)
      : cli_(cli), progress_(cli.streams.err_terminal && !cli.options.json), total_(total) {}

  void Show(const v1::DelegateResponse& event) {
    if (cli_.options.json) return ShowJson(event);
    Clear();
    for (const v1::BranchResult& result : event.results()) {
      ++ended_;
      std::ostream& out = result.has_error() ? cli_.streams.err : cli_.streams.out;
      out << result.branch() << '\t'
          << Printable(result.has_error() ? result.error().message() : result.text()) << std::endl;
    }
    if (progress_) {
      cli_.streams.err << absl::StrFormat("%d of %d branches ended", ended_, total_) << std::flush;
    }
  }
  void Clear() {
    if (progress_) cli_.streams.err << "\r\033[K" << std::flush;
  }

 private:
  void ShowJson(const v1::DelegateResponse& event) {
    for (const v1::BranchDelta& delta : event.deltas()) {
      PrintJson({{"type", "delta"}, {"branch", delta.branch()}, {"text", delta.text()}},
                cli_.streams.out);
    }
    for (const v1::BranchResult& result : event.results()) {
      Json json = {{"type", "result"}};
      json.update(ToJson(result));
      PrintJson(json, cli_.streams.out);
    }
  }

  Cli& cli_;
  const bool progress_;
  const int total_;
  int ended_ = 0;
};

absl::Status Delegate(Cli& cli, const DelegateFlags& flags) {
  ANABRANCH_ASSIGN_OR_RETURN(const v1::DelegateRequest request, Request(cli, flags));
  Cancellation cancel;
  InterruptScope interrupt(cancel);
  Printer printer(cli, request.branches_size());
  const auto all = CallFrom(flags.source, request, [&](const v1::DelegateRequest& named) {
    return cli.client().Delegate(
        named, [&](const v1::DelegateResponse& event) { printer.Show(event); }, &cancel);
  });
  printer.Clear();
  ANABRANCH_RETURN_IF_ERROR(all.status());
  const v1::DelegateDone& done = all->done();
  if (cli.options.json) {
    Json json = {{"type", "done"}};
    json.update(ToJson(done));
    PrintJson(json, cli.streams.out);
    return absl::OkStatus();
  }
  for (const v1::KeptBranch& kept : done.kept()) {
    cli.streams.err << "kept " << kept.session().id() << "  " << kept.session().head_state_id()
                    << std::endl;
  }
  if (flags.usage) cli.streams.err << UsageLine(done.usage()) << std::endl;
  if (done.failed_count() == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(done.failed_count(), " of ", request.branches_size(),
                                          " branches failed (above)"));
}

}  // namespace

void AddDelegateCommand(CLI::App& app, Cli& cli) {
  auto flags = std::make_shared<DelegateFlags>();
  CLI::App* delegate = app.add_subcommand(
      "delegate", "Run tasks on branches of one point, all at once; the source does not change");
  delegate->add_option("SOURCE", flags->source, "Session, ref or state")->required();
  delegate->add_option("--input", flags->inputs, "What one branch is told (repeatable)")
      ->allow_extra_args(false)
      ->type_name("TEXT");
  delegate->add_option("--inputs", flags->file, "The same, one a line; - reads standard input")
      ->type_name("FILE");
  delegate->add_flag("--raw", flags->raw,
                     "Inputs are plain text to go on from, not messages to reply to");
  delegate
      ->add_option("--policy", flags->policy,
                   "drop the branches, keep all as sessions, or keep the best by score")
      ->transform(CLI::CheckedTransformer(Policies()).description(""))
      ->type_name("drop|keep|best")
      ->default_str("drop");
  delegate->add_option("--keep", flags->keep, "How many with --policy best (default 1)")
      ->check(CLI::Range(1, 1024).description(""));
  delegate->add_option("--prefix", flags->prefix,
                       "Name what is kept PREFIX/1, PREFIX/2 ... (default: SOURCE)");
  delegate
      ->add_option("--time-limit", flags->time_limit, "Longest time a branch may take once begun")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.001, 1e9).description(""));
  delegate->add_flag("--usage", flags->usage, "Print what it cost to stderr");
  flags->sampling.AddTo(*delegate);
  delegate->footer(
      "Prints the branch's number, a tab and its text, as branches end; with --json deltas,\n"
      "results (with score and usage) and done. Exit code 1 if a branch failed.");
  delegate->callback(
      [&cli, flags] { cli.command = [flags](Cli& c) { return Delegate(c, *flags); }; });
}

}  // namespace anabranch::cli
