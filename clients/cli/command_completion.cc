// `anabranch completion bash|zsh|fish`.
#include <memory>
#include <ostream>

#include "clients/cli/commands.h"
#include "clients/cli/completion_script.h"

namespace anabranch::cli {

void AddCompletionCommand(CLI::App& app, Cli& cli) {
  auto shell = std::make_shared<std::string>();
  CLI::App* completion = app.add_subcommand("completion", "Print a shell completion script");
  completion->footer(
      "bash: anabranch completion bash > ~/.local/share/bash-completion/completions/anabranch\n"
      "zsh:  echo 'source <(anabranch completion zsh)' >> ~/.zshrc\n"
      "fish: anabranch completion fish > ~/.config/fish/completions/anabranch.fish");
  completion->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  completion->callback([&app, &cli, shell] {
    cli.command = [&app, shell](Cli& c) {
      c.streams.out << CompletionScript(app, *shell);
      return absl::OkStatus();
    };
  });
}

}  // namespace anabranch::cli
