// `anabranch span|forget|decay`: states computed from one state.
#include <memory>
#include <ostream>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/format.h"
#include "clients/cli/json_output.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

struct Flags {
  std::string state, span, ref;
  int64_t tokens = 0;
};

// One end of a span: a token count, a state or ref, or nothing.
template <typename SetCount, typename SetId>
absl::Status SetPoint(const std::string& text, SetCount set_count, SetId set_id) {
  int64_t count = 0;
  if (text.empty()) return absl::OkStatus();
  if (!std::all_of(text.begin(), text.end(), absl::ascii_isdigit)) {
    set_id(text);
  } else if (absl::SimpleAtoi(text, &count)) {
    set_count(count);
  } else {
    return UsageError(absl::StrCat(text, " is no token count"));
  }
  return absl::OkStatus();
}

// "A..B". Without a state of its own the span's end is the state that it belongs to.
absl::StatusOr<v1::SpanRequest> ParseSpan(const Flags& flags) {
  const std::string& text = flags.span.empty() ? flags.state : flags.span;
  const size_t dots = text.find("..");
  if (dots == std::string::npos) {
    return UsageError(absl::StrCat("'", text,
                                   "' is no span: write A..B, each end a token count, a ",
                                   "state or a ref, or nothing for the beginning or end"));
  }
  v1::SpanRequest request;
  v1::TokenSpan& span = *request.mutable_span();
  const std::string begin = text.substr(0, dots), end = text.substr(dots + 2);
  ANABRANCH_RETURN_IF_ERROR(SetPoint(
      begin, [&](int64_t count) { span.set_begin(count); },
      [&](const std::string& id) { span.set_begin_id(id); }));
  ANABRANCH_RETURN_IF_ERROR(SetPoint(
      end, [&](int64_t count) { span.set_end(count); },
      [&](const std::string& id) { span.set_end_id(id); }));
  request.set_id(flags.span.empty() ? span.end_id() : flags.state);
  if (request.id().empty()) {
    return UsageError(absl::StrCat("'", text, "' does not say of which state: write STATE A..B"));
  }
  request.set_ref(flags.ref);
  return request;
}

void Print(Cli& cli, const v1::ComputedState& computed, bool with_span) {
  if (cli.options.json) return PrintJson(ToJson(computed), cli.streams.out);
  std::vector<std::pair<std::string, std::string>> fields = {
      {"state", computed.state().id()},
      {"ref", computed.has_ref() ? computed.ref().name() : "-"},
      {"tokens", HumanCount(computed.state().token_count())},
      {"size", HumanBytes(computed.state().size_bytes())}};
  if (with_span) {
    fields.insert(fields.begin() + 2,
                  {"span", absl::StrCat(computed.begin(), "..", computed.end())});
    fields.push_back({"replayed", HumanCount(computed.usage().tokens_replayed())});
  }
  PrintFields(fields, cli.streams.out);
}

absl::Status Span(Cli& cli, const Flags& flags) {
  ANABRANCH_ASSIGN_OR_RETURN(v1::SpanRequest request, ParseSpan(flags));
  ANABRANCH_ASSIGN_OR_RETURN(const v1::ComputedState span,
                             cli.client().ExtractSpan(std::move(request)));
  Print(cli, span, true);
  return absl::OkStatus();
}

absl::Status Forget(Cli& cli, const Flags& flags) {
  ANABRANCH_ASSIGN_OR_RETURN(v1::SpanRequest request, ParseSpan(flags));
  ANABRANCH_ASSIGN_OR_RETURN(const v1::ComputedState rest, cli.client().Forget(std::move(request)));
  Print(cli, rest, true);
  return absl::OkStatus();
}

absl::Status Decay(Cli& cli, const Flags& flags) {
  v1::DecayRequest request;
  request.set_id(flags.state);
  request.set_tokens(flags.tokens);
  request.set_ref(flags.ref);
  ANABRANCH_ASSIGN_OR_RETURN(const v1::ComputedState aged, cli.client().Decay(std::move(request)));
  Print(cli, aged, false);
  return absl::OkStatus();
}

void AddRefFlag(CLI::App& command, const std::shared_ptr<Flags>& flags) {
  command.add_option("-o,--ref", flags->ref, "Ref to set to the new state")->type_name("REF");
}

}  // namespace

void AddAlgebraCommands(CLI::App& app, Cli& cli) {
  auto flags = std::make_shared<Flags>();
  CLI::App* span = app.add_subcommand("span", "The state of a part of what was read, alone");
  span->add_option("STATE", flags->state, "State or ref; or A..B of states, where B is the state")
      ->required();
  span->add_option("SPAN", flags->span,
                   "A..B: token counts, or states that STATE goes on from; empty for an end");
  AddRefFlag(*span, flags);
  span->callback([&cli, flags] { cli.command = [flags](Cli& c) { return Span(c, *flags); }; });

  CLI::App* forget = app.add_subcommand("forget", "A state without a part of what it has read");
  forget->add_option("STATE", flags->state, "State or ref")->required();
  forget->add_option("SPAN", flags->span, "A..B, as of `span`")->required();
  AddRefFlag(*forget, flags);
  forget->callback([&cli, flags] { cli.command = [flags](Cli& c) { return Forget(c, *flags); }; });

  CLI::App* decay = app.add_subcommand("decay", "A state aged, as if tokens had passed unread");
  decay->add_option("STATE", flags->state, "State or ref")->required();
  decay->add_option("TOKENS", flags->tokens, "How many tokens pass")
      ->required()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40).description(""));
  AddRefFlag(*decay, flags);
  decay->callback([&cli, flags] { cli.command = [flags](Cli& c) { return Decay(c, *flags); }; });
}

}  // namespace anabranch::cli
