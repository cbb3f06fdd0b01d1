#include "clients/cli/history_flags.h"

#include <fstream>
#include <istream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/text_input.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

absl::StatusOr<std::string> ReadAll(Cli& cli, const std::string& file) {
  std::ifstream opened;
  if (file != "-") {
    opened.open(file, std::ios::binary);
    if (!opened) return UsageError(absl::StrCat("cannot open ", file));
  }
  const std::string name = file == "-" ? "standard input" : file;
  TextInput input(file == "-" ? cli.streams.in : opened, name);
  ANABRANCH_ASSIGN_OR_RETURN(std::optional<std::string> text, input.Next());
  if (!text.has_value()) return UsageError(absl::StrCat(name, " is empty"));
  ANABRANCH_ASSIGN_OR_RETURN(const std::optional<std::string> more, input.Next());
  if (more.has_value()) return UsageError(absl::StrCat(name, ": a history is at most 3 MiB"));
  return *std::move(text);
}

absl::StatusOr<v1::Content> Messages(const std::string& text, const std::string& file) {
  const auto wrong = [&] {
    return UsageError(
        absl::StrCat(file, R"( is not a JSON list of {"role": "...", "text": "..."})"));
  };
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_array()) return wrong();
  v1::Content content;
  for (const auto& message : json) {
    if (!message.is_object() || !message.contains("role") || !message["role"].is_string() ||
        !message.contains("text") || !message["text"].is_string()) {
      return wrong();
    }
    v1::Message& added = *content.mutable_messages()->add_messages();
    added.set_role(message["role"].get<std::string>());
    added.set_text(message["text"].get<std::string>());
  }
  return content;
}

}  // namespace

absl::StatusOr<std::optional<v1::Content>> HistoryFlags::Read(Cli& cli) const {
  if (!messages_file.empty()) {
    ANABRANCH_ASSIGN_OR_RETURN(const std::string text, ReadAll(cli, messages_file));
    ANABRANCH_ASSIGN_OR_RETURN(v1::Content content, Messages(text, messages_file));
    return std::optional<v1::Content>(std::move(content));
  }
  if (text_file.empty()) return std::optional<v1::Content>();
  v1::Content content;
  ANABRANCH_ASSIGN_OR_RETURN(*content.mutable_text(), ReadAll(cli, text_file));
  return std::optional<v1::Content>(std::move(content));
}

void AddHistoryFlags(CLI::App& command, CLI::Option* from, HistoryFlags& flags) {
  CLI::Option* text = command.add_option(
      "--history", flags.text_file,
      "Raw text of everything read so far: what the library has of it is not read again");
  CLI::Option* messages =
      command.add_option("--messages", flags.messages_file,
                         R"(The same as a JSON list of {"role": "...", "text": "..."})");
  text->type_name("FILE|-")->excludes(from)->excludes(messages);
  messages->type_name("FILE|-")->excludes(from);
}

}  // namespace anabranch::cli
