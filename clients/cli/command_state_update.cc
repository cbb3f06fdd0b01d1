// `anabranch state expire|pin|unpin|label`: what may change of a state.
#include <memory>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/expiry_time.h"
#include "clients/cli/format.h"
#include "clients/cli/json_output.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

// Updates take ids; people name refs.
absl::Status Update(Cli& cli, const std::string& name, v1::UpdateStateRequest request) {
  ANABRANCH_ASSIGN_OR_RETURN(const v1::State before, cli.client().GetState(name));
  request.set_id(before.id());
  ANABRANCH_ASSIGN_OR_RETURN(const v1::State state, cli.client().UpdateState(request));
  if (cli.options.json) {
    PrintJson(ToJson(state), cli.streams.out);
    return absl::OkStatus();
  }
  PrintFields({{"state", state.id()},
               {"expires", state.has_expire_time() ? ExpiryOf(state.expire_time()) : "never"},
               {"pinned", state.pinned() ? "yes" : "no"},
               {"labels", LabelList(state.labels())}},
              cli.streams.out);
  return absl::OkStatus();
}

absl::Status Expire(Cli& cli, const std::string& name, const std::string& when) {
  v1::UpdateStateRequest request;
  request.mutable_update_mask()->add_paths("expire_time");
  ANABRANCH_ASSIGN_OR_RETURN(const absl::Time time, ParseExpiry(when, absl::Now()));
  if (time != absl::InfiniteFuture()) {
    request.mutable_expire_time()->set_seconds(absl::ToUnixSeconds(time));
  }
  return Update(cli, name, request);
}

absl::Status Pin(Cli& cli, const std::string& name, bool pinned) {
  v1::UpdateStateRequest request;
  request.mutable_update_mask()->add_paths("pinned");
  request.set_pinned(pinned);
  return Update(cli, name, request);
}

// KEY=VALUE sets a label, KEY= removes it; the others stay.
absl::Status Label(Cli& cli, const std::string& name, const std::vector<std::string>& changes) {
  ANABRANCH_ASSIGN_OR_RETURN(const v1::State state, cli.client().GetState(name));
  v1::UpdateStateRequest request;
  request.mutable_update_mask()->add_paths("labels");
  *request.mutable_labels() = state.labels();
  request.set_etag(state.etag());  // labels that were changed meanwhile are not overwritten
  for (const std::string& change : changes) {
    const size_t equals = change.find('=');
    if (equals == std::string::npos || equals == 0) {
      return UsageError(absl::StrCat("'", change, "' is not KEY=VALUE"));
    }
    const std::string key = change.substr(0, equals), value = change.substr(equals + 1);
    if (value.empty()) {
      request.mutable_labels()->erase(key);
    } else {
      (*request.mutable_labels())[key] = value;
    }
  }
  return Update(cli, name, request);
}

}  // namespace

void AddStateUpdateCommands(CLI::App& state, Cli& cli) {
  auto name = std::make_shared<std::string>();
  auto when = std::make_shared<std::string>();
  CLI::App* expire = state.add_subcommand(
      "expire", "Say when a state may go: deleted after that time once nothing needs it");
  expire->add_option("STATE", *name, "State or ref")->required();
  expire
      ->add_option("WHEN", *when,
                   "From now, as 30d, 12h or 15m; a time as "
                   "2030-01-31T12:00:00Z; or never")
      ->required();
  expire->callback([&cli, name, when] {
    cli.command = [name, when](Cli& c) { return Expire(c, *name, *when); };
  });

  for (const bool pinned : {true, false}) {
    CLI::App* pin = state.add_subcommand(pinned ? "pin" : "unpin",
                                         pinned ? "Keep a state whole, whatever its time and "
                                                  "however full the library"
                                                : "Let a pinned state go like any other");
    pin->add_option("STATE", *name, "State or ref")->required();
    pin->callback([&cli, name, pinned] {
      cli.command = [name, pinned](Cli& c) { return Pin(c, *name, pinned); };
    });
  }

  auto labels = std::make_shared<std::vector<std::string>>();
  CLI::App* label = state.add_subcommand("label", "Set labels of a state; KEY= removes one");
  label->add_option("STATE", *name, "State or ref")->required();
  label->add_option("LABEL", *labels, "KEY=VALUE to set one, KEY= to remove it")->required();
  label->callback([&cli, name, labels] {
    cli.command = [name, labels](Cli& c) { return Label(c, *name, *labels); };
  });
}

}  // namespace anabranch::cli
