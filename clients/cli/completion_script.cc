#include "clients/cli/completion_script.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace anabranch::cli {
namespace {

// A command with the words that lead to it: "" for the program, "session create".
struct Command {
  std::string path;
  const CLI::App* app;
};

void Collect(const CLI::App& app, const std::string& path, std::vector<Command>& commands) {
  commands.push_back({path, &app});
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    Collect(*sub, path.empty() ? sub->get_name() : absl::StrCat(path, " ", sub->get_name()),
            commands);
  }
}

std::vector<const CLI::App*> Subcommands(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<std::string> LongFlags(const CLI::App& app) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) flags.push_back(absl::StrCat("--", name));
  }
  return flags;
}

// Commands that may follow, then flags of the command and, since they may come anywhere, global
// ones.
std::string Words(const CLI::App& root, const Command& command) {
  std::vector<std::string> words;
  for (const CLI::App* sub : Subcommands(*command.app)) words.push_back(sub->get_name());
  for (std::string& flag : LongFlags(*command.app)) words.push_back(std::move(flag));
  if (command.app != &root) {
    for (std::string& flag : LongFlags(root)) {
      if (flag != "--help" && flag != "--version") words.push_back(std::move(flag));
    }
  }
  return absl::StrJoin(words, " ");
}

std::string BashScript(const CLI::App& root, const std::vector<Command>& commands) {
  std::string known, words;
  for (const Command& command : commands) {
    if (!command.path.empty())
      absl::StrAppend(&known, known.empty() ? "" : "|", "\"", command.path, "\"");
    absl::StrAppend(&words, "    \"", command.path, "\") words=\"", Words(root, command),
                    "\" ;;\n");
  }
  return absl::StrCat(
      "_anabranch() {\n"
      "  local path=\"\" words=\"\" next i\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    next=\"${path:+$path }${COMP_WORDS[i]}\"\n"
      "    case \"$next\" in\n      ",
      known, ") path=\"$next\" ;;\n    esac\n  done\n  case \"$path\" in\n", words,
      "  esac\n"
      "  COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n"
      "}\n"
      "complete -o default -F _anabranch anabranch\n");
}

std::string FishQuote(const std::string& text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"'", "\\'"}}), "'");
}

// The condition under which a command's words are offered.
std::string FishCondition(const Command& command) {
  if (command.path.empty()) return "__fish_use_subcommand";
  std::string condition;
  std::vector<std::string> words = absl::StrSplit(command.path, ' ');
  for (const std::string& word : words) {
    absl::StrAppend(&condition, condition.empty() ? "" : "; and ", "__fish_seen_subcommand_from ",
                    word);
  }
  for (const CLI::App* sub : Subcommands(*command.app)) {
    absl::StrAppend(&condition, "; and not __fish_seen_subcommand_from ", sub->get_name());
  }
  return condition;
}

std::string FishScript(const CLI::App& root, const std::vector<Command>& commands) {
  std::string script;
  for (const Command& command : commands) {
    const std::string condition = FishQuote(FishCondition(command));
    for (const CLI::App* sub : Subcommands(*command.app)) {
      absl::StrAppend(&script, "complete -c anabranch -f -n ", condition, " -a ", sub->get_name(),
                      " -d ", FishQuote(sub->get_description()), "\n");
    }
    for (const CLI::Option* option : command.app->get_options()) {
      for (const std::string& name : option->get_lnames()) {
        absl::StrAppend(&script, "complete -c anabranch",
                        command.app == &root ? "" : absl::StrCat(" -n ", condition), " -l ", name,
                        option->get_type_size() > 0 ? " -r" : "", " -d ",
                        FishQuote(option->get_description()), "\n");
      }
    }
  }
  return script;
}

}  // namespace

std::string CompletionScript(const CLI::App& app, absl::string_view shell) {
  std::vector<Command> commands;
  Collect(app, "", commands);
  if (shell == "fish") return FishScript(app, commands);
  if (shell == "zsh") {
    return absl::StrCat(
        "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }\n"
        "autoload -Uz bashcompinit && bashcompinit\n",
        BashScript(app, commands));
  }
  return BashScript(app, commands);
}

}  // namespace anabranch::cli
