#include "clients/cli/session_flags.h"

namespace anabranch::cli {

void AddModelFlag(CLI::App& command, std::string& model) {
  command
      .add_option("--model", model,
                  "Model of a session that is opened (default: of what it goes on from, else the "
                  "first that is served; see status)")
      ->type_name("NAME");
}

void AddSessionFlags(CLI::App& command, SessionFlags& flags) {
  command.add_option("NAME", flags.name, "Session; opened from the ref NAME, or empty, if needed")
      ->required();
  AddModelFlag(command, flags.model);
}

}  // namespace anabranch::cli
