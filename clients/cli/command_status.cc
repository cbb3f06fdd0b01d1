// `anabranch status`: what the server is and how it is doing.
#include <ostream>

#include "absl/strings/str_cat.h"
#include "clients/cli/codec_names.h"
#include "clients/cli/commands.h"
#include "clients/cli/format.h"
#include "clients/cli/json_output.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

std::string LibraryState(const v1::LibraryStatus& library) {
  if (!library.read_only()) return "";
  return absl::StrCat(" READ ONLY: ", library.read_only_reason());
}

std::string LastScrub(const v1::ServerStatus& status) {
  if (!status.has_last_scrub()) return "never";
  const v1::ScrubStatus& scrub = status.last_scrub();
  const std::string when = scrub.running() ? "running since " + AgeOf(scrub.start_time())
                           : scrub.has_end_time()
                               ? AgeOf(scrub.end_time())
                               : "interrupted, begun " + AgeOf(scrub.start_time());
  return absl::StrCat(when, ": ", HumanCount(scrub.states_checked()), " states, ",
                      HumanBytes(scrub.bytes_checked()), ", ", HumanCount(scrub.findings()),
                      " damaged, ", HumanCount(scrub.repaired()), " repaired");
}

absl::Status ShowStatus(Cli& cli) {
  ANABRANCH_ASSIGN_OR_RETURN(v1::ServerStatus status, cli.client().GetStatus());
  if (cli.options.json) {
    PrintJson(ToJson(status), cli.streams.out);
    return absl::OkStatus();
  }
  const v1::ModelInfo& model = status.model();
  const v1::EngineStatus& engine = status.engine();
  const v1::LibraryStatus& library = status.library();
  const std::string kv =
      model.kv_bytes_per_token() == 0
          ? ""
          : absl::StrCat(" + ", HumanBytes(model.kv_bytes_per_token()), "/token");
  PrintFields(
      {{"server", absl::StrCat(cli.options.address, ", version ", status.version(), ", started ",
                               AgeOf(status.start_time()), status.draining() ? ", DRAINING" : "")},
       {"model",
        absl::StrCat(model.name(), " (", model.model_type(), ", ", HumanBytes(model.weight_bytes()),
                     ", ", model.chat() ? "chat" : "no chat format", ")")},
       {"fingerprint", absl::StrCat(model.fingerprint(), ", ", model.numerics_profile())},
       {"state size", absl::StrCat(HumanBytes(model.state_bytes()), kv)},
       {"state codec", CodecName(status.state_codec())},
       {"context", absl::StrCat("at most ", HumanCount(status.max_context_tokens()), " tokens")},
       {"slots", absl::StrCat(engine.slots_used(), " of ", engine.slots_total(), " used")},
       {"kv pages", absl::StrCat(HumanCount(engine.kv_pages_used()), " of ",
                                 HumanCount(engine.kv_pages_total()), " used")},
       {"calls", absl::StrCat(engine.running(), " running, ", engine.queued(), " waiting")},
       {"tokens", absl::StrCat(HumanCount(engine.tokens_read()), " read, ",
                               HumanCount(engine.tokens_generated()), " generated in ",
                               HumanMillis(engine.busy_seconds() * 1000))},
       {"library", absl::StrCat(library.directory(), LibraryState(library))},
       {"holds", absl::StrCat(HumanCount(library.states()), " states, ", HumanCount(library.refs()),
                              " refs, ", HumanCount(library.sessions()), " sessions, ",
                              HumanBytes(library.disk_bytes()))},
       {"verified", LastScrub(status)}},
      cli.streams.out);
  return absl::OkStatus();
}

}  // namespace

void AddStatusCommand(CLI::App& app, Cli& cli) {
  app.add_subcommand("status", "What the server is and how it is doing")->callback([&cli] {
    cli.command = ShowStatus;
  });
}

}  // namespace anabranch::cli
