// `anabranch status`: what the server is and how it is doing.
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "clients/cli/codec_names.h"
#include "clients/cli/commands.h"
#include "clients/cli/format.h"
#include "clients/cli/json_output.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

using Fields = std::vector<std::pair<std::string, std::string>>;

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

// "12 of 100", or without a limit "12".
std::string Of(const std::string& used, int64_t limit, const std::string& limit_text) {
  return limit == 0 ? used : absl::StrCat(used, " of ", limit_text);
}

std::string UseLine(const v1::TenantUse& use) {
  return absl::StrCat(
      Of(HumanCount(use.states()), use.max_states(), HumanCount(use.max_states())), " states (",
      HumanCount(use.archived_states()), " archived), ",
      Of(HumanCount(use.sessions()), use.max_sessions(), HumanCount(use.max_sessions())),
      " sessions, ", HumanCount(use.refs()), " refs, ",
      Of(HumanBytes(use.bytes()), use.max_bytes(), HumanBytes(use.max_bytes())));
}

std::string RetentionLine(const v1::RetentionStatus& retention) {
  const int64_t days = retention.default_expiry().seconds() / 86400;
  return absl::StrCat(
      "states expire ",
      !retention.has_default_expiry() ? "when told to"
      : days >= 2                     ? absl::StrCat("after ", days, " days")
                  : absl::StrCat("after ", retention.default_expiry().seconds(), " s"),
      "; ", HumanCount(retention.expired_states() + retention.deleted_states()), " deleted, ",
      HumanCount(retention.expired_archived_states() + retention.evicted_states()), " archived, ",
      HumanBytes(retention.freed_bytes()), " freed since the start");
}

std::string BudgetLine(const v1::RetentionStatus& retention) {
  const std::string bytes = HumanBytes(retention.library_bytes());
  if (retention.max_bytes() == 0) return absl::StrCat(bytes, ", no budget");
  return absl::StrCat(bytes, " of ", HumanBytes(retention.max_bytes()),
                      retention.budget_unreachable()
                          ? " UNREACHABLE: what is left is pinned, labelled, named or in use"
                          : "");
}

std::string GarbageLine(const v1::RetentionStatus& retention) {
  if (!retention.has_last_garbage_collection()) return "not collected since the start";
  const v1::GarbageReport& last = retention.last_garbage_collection();
  return absl::StrCat("collected ", AgeOf(last.end_time()), ", ",
                      HumanBytes(last.dead_bytes_after()), " dead on disk");
}

std::string Slots(const v1::EngineStatus& engine) {
  return absl::StrCat(engine.slots_used(), " of ", engine.slots_total(), " used");
}

// Slots of all devices, then of each where there are several.
std::string SlotsLine(const v1::ModelStatus& model) {
  std::string line = Slots(model.engine());
  for (const v1::DeviceStatus& device : model.devices()) {
    absl::StrAppend(&line, "; ", device.name(), ": ", Slots(device.engine()));
  }
  return line;
}

// What a model is and how much of its engine is in use.
void AddModel(const v1::ModelStatus& status, Fields& fields) {
  const v1::ModelInfo& model = status.model();
  const v1::EngineStatus& engine = status.engine();
  const std::string kv =
      model.kv_bytes_per_token() == 0
          ? ""
          : absl::StrCat(" + ", HumanBytes(model.kv_bytes_per_token()), "/token");
  fields.push_back({"model", absl::StrCat(model.name(), " (", model.model_type(), ", ",
                                          HumanBytes(model.weight_bytes()), ", ",
                                          model.chat() ? "chat" : "no chat format", ")")});
  fields.push_back(
      {"fingerprint", absl::StrCat(model.fingerprint(), ", ", model.numerics_profile())});
  fields.push_back({"state size", absl::StrCat(HumanBytes(model.state_bytes()), kv)});
  fields.push_back({"slots", SlotsLine(status)});
  fields.push_back({"kv pages", absl::StrCat(HumanCount(engine.kv_pages_used()), " of ",
                                             HumanCount(engine.kv_pages_total()), " used")});
}

absl::Status ShowStatus(Cli& cli) {
  ANABRANCH_ASSIGN_OR_RETURN(v1::ServerStatus status, cli.client().GetStatus());
  if (cli.options.json) {
    PrintJson(ToJson(status), cli.streams.out);
    return absl::OkStatus();
  }
  const v1::EngineStatus& engine = status.engine();
  const v1::LibraryStatus& library = status.library();
  Fields fields = {
      {"server", absl::StrCat(cli.options.address, ", version ", status.version(), ", started ",
                              AgeOf(status.start_time()), status.draining() ? ", DRAINING" : "")}};
  for (const v1::ModelStatus& model : status.models()) AddModel(model, fields);
  const Fields rest = {
      {"state codec", CodecName(status.state_codec())},
      {"context", absl::StrCat("at most ", HumanCount(status.max_context_tokens()), " tokens")},
      {"calls", absl::StrCat(engine.running(), " running, ", engine.queued(), " waiting")},
      {"tokens", absl::StrCat(HumanCount(engine.tokens_read()), " read, ",
                              HumanCount(engine.tokens_generated()), " generated in ",
                              HumanMillis(engine.busy_seconds() * 1000))},
      {"library", absl::StrCat(library.directory(), LibraryState(library))},
      {"holds", absl::StrCat(HumanCount(library.states()), " states, ", HumanCount(library.refs()),
                             " refs, ", HumanCount(library.sessions()), " sessions, ",
                             HumanBytes(library.disk_bytes()), " on disk")},
      {"yours", UseLine(status.tenant_use())},
      {"retention", RetentionLine(status.retention())},
      {"budget", BudgetLine(status.retention())},
      {"garbage", GarbageLine(status.retention())},
      {"verified", LastScrub(status)}};
  fields.insert(fields.end(), rest.begin(), rest.end());
  PrintFields(fields, cli.streams.out);
  return absl::OkStatus();
}

}  // namespace

void AddStatusCommand(CLI::App& app, Cli& cli) {
  app.add_subcommand("status", "What the server is and how it is doing")->callback([&cli] {
    cli.command = ShowStatus;
  });
}

}  // namespace anabranch::cli
