// anabranchd: command line only; the commands are in serve_command and check_commands.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "runtime/chat_formats.h"
#include "service/check_commands.h"
#include "service/library_commands.h"
#include "service/long_duration.h"
#include "service/serve_command.h"
#include "service/version.h"

namespace anabranch {
namespace {

constexpr const char* kStateDTypeHelp =
    "What recurrent states are kept in between steps: float32, bfloat16 (half the memory, rounded "
    "at random) or int8 (a little more than a quarter, rounded more coarsely)";
constexpr char kStateWriteEveryHelp[] =
    "For a GPU: how many tokens of a generation may wait, up to 16, until Mamba-2's recurrent "
    "states are written; 1: none. With 16, mamba2-2.7b on an H200 took 6 % (16-bit states) to 12 % "
    "(float32) less for a step of 256 sequences; fewer gained or lost up to 4 %, and mamba2-130m "
    "lost";
constexpr char kDeviceHelp[] = "Where the model runs: cpu, cuda or cuda:N";
constexpr char kDevicesHelp[] =
    "Where the model runs: cpu, cuda or cuda:N; several with a comma between them run an engine "
    "each, with --slots and --kv-pages each, and sessions go where the least work is";

// Flags in units of their own.
struct Durations {
  int64_t drain_seconds = 0, scrub_hours = 0;
};

// What keeps a library safe over years.
void AddMaintenance(CLI::App* serve, ServerConfig& config, int64_t& scrub_hours) {
  serve->add_option("--backup-root", config.backup_root,
                    "Backups are made in folders below this one, best on another disk; without it "
                    "the server makes none");
  serve
      ->add_option("--scrub-every", scrub_hours,
                   "Hours between checks of all that the library holds; 0: only when asked")
      ->capture_default_str();
  serve
      ->add_option("--scrub-rate", config.scrub_bytes_per_second,
                   "Bytes a second that such a check reads, e.g. 8MiB; 0: no limit")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->default_str("8MiB");
}

void AddDuration(CLI::App& command, const char* name, const char* help, const char* standard,
                 absl::Duration* value) {
  command
      .add_option_function<std::string>(
          name,
          [name, value](const std::string& text) {
            if (absl::ParseDuration(text, value)) return;
            throw CLI::ValidationError(name, "'" + text + "' is no time such as 30s, 10m or 720h");
          },
          help)
      ->type_name("TIME")
      ->default_str(standard);
}

void AddCodecs(CLI::App& serve, ServerConfig& config) {
  ReencodingOptions& reencoding = config.reencoding;
  serve
      .add_option("--state-codec", config.state_codec,
                  "How states are kept, unless a session chooses: exact, near (half the size) or "
                  "compact (a quarter); the last two are lossy, and what goes on from them says so")
      ->capture_default_str();
  AddDuration(serve, "--reencode-near-after", "Keep states that were not used for so long as near",
              "never", &reencoding.near_after);
  AddDuration(serve, "--reencode-compact-after", "And as compact", "never",
              &reencoding.compact_after);
  AddDuration(serve, "--archive-after",
              "And as their tokens alone: what needs them has them read again", "never",
              &reencoding.archive_after);
  AddDuration(serve, "--reencode-interval", "Between two rounds over the library for that", "10m",
              &reencoding.interval);
  serve
      .add_option("--reencode-rate", reencoding.max_bytes_per_second,
                  "Bytes a second that they may read and write, e.g. 16MiB")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->default_str("16MiB");
}

// "30d", "12h", "90s", or "never".
std::string ReadDuration(const std::string& text, absl::Duration& duration) {
  const std::optional<absl::Duration> parsed = ParseLongDuration(text);
  if (!parsed.has_value()) return "'" + text + "' is not a time like 30d, 12h, 15m or never";
  duration = *parsed;
  return "";
}

CLI::Option* AddLongDuration(CLI::App& app, const std::string& name, absl::Duration& duration,
                             const std::string& help, const std::string& standard) {
  const auto read = [&duration](const std::vector<std::string>& words) {
    const std::string problem = ReadDuration(words.front(), duration);
    if (!problem.empty()) throw CLI::ValidationError(problem);
    return true;
  };
  return app.add_option(name, read, help)->type_name("TIME")->default_str(standard);
}

CLI::Option* AddBytes(CLI::App& app, const std::string& name, int64_t& bytes,
                      const std::string& help) {
  return app.add_option(name, bytes, help)->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
}

void AddRetention(CLI::App& serve, ServeOptions& options) {
  ServerConfig& config = options.config;
  JanitorOptions& retention = config.retention;
  serve.add_option("--quota-states", config.quotas.states, "States a tenant may have; 0: no limit")
      ->capture_default_str();
  serve
      .add_option("--quota-sessions", config.quotas.sessions,
                  "Sessions a tenant may have; 0: no limit")
      ->capture_default_str();
  AddBytes(serve, "--quota-bytes", config.quotas.bytes,
           "Bytes the states of a tenant may take, e.g. 10GiB; 0: no limit");
  AddLongDuration(serve, "--default-expiry", config.default_expiry,
                  "States stored without an expiry time get this long, e.g. 30d", "never");
  AddBytes(serve, "--library-bytes", retention.budget.high_bytes,
           "When the states of all tenants take more, archive the least valuable: only their "
           "tokens stay; 0: no budget");
  AddBytes(serve, "--library-low-bytes", retention.budget.low_bytes,
           "Archive down to this; by default nine tenths of --library-bytes");
  serve
      .add_option("--evict-alpha", retention.budget.alpha,
                  "How much tokens saved per byte count beside recency when choosing")
      ->capture_default_str();
  AddLongDuration(serve, "--sweep-every", retention.sweep_every,
                  "How often to look for expired states", "1m");
  AddLongDuration(serve, "--gc-every", retention.collect_every,
                  "How often to give the disk back what deleted states took; 0: only when asked to "
                  "(anabranch admin gc)",
                  "24h");
}

void AddModels(CLI::App& serve, ServerConfig& config) {
  const auto read = [&config](const std::vector<std::string>& words) {
    config.models.clear();
    for (const std::string& word : words) {
      const auto spec = ParseModelSpec(word);
      if (!spec.ok()) throw CLI::ValidationError(std::string(spec.status().message()));
      config.models.push_back(*spec);
    }
    return true;
  };
  serve
      .add_option(
          "--model", read,
          "Folder of a model. Given again, one more model is served from the same library, "
          "and each session is of one; who names none gets the first. After the folder may "
          "follow what is different for the model: ,name= (otherwise the folder's) ,device= "
          "(several with a + between them) ,dtype= ,state-dtype= ,slots= ,kv-pages=")
      ->type_name("DIR[,KEY=VALUE]...")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->required();
}

void AddServe(CLI::App& app, ServeOptions& options, Durations& durations) {
  CLI::App* serve = app.add_subcommand("serve", "Serve models and a library over gRPC");
  ServerConfig& config = options.config;
  AddModels(*serve, config);
  serve->add_option("--data", config.data, "Folder of the library; made if missing")->required();
  serve->add_option("--listen", config.listen, "Where to serve gRPC; port 0 takes any free one")
      ->capture_default_str();
  serve
      ->add_option("--metrics", config.metrics,
                   "Where to serve /metrics over HTTP; \"off\": nowhere")
      ->capture_default_str();
  serve->add_option("--dtype", config.dtype, "Compute precision: float32 or bfloat16")
      ->capture_default_str();
  serve->add_option("--state-dtype", config.state_dtype, kStateDTypeHelp)->capture_default_str();
  serve->add_option("--state-write-every", config.state_write_every, kStateWriteEveryHelp)
      ->capture_default_str();
  serve->add_option("--device", config.device, kDevicesHelp)->capture_default_str();
  serve->add_option("--chat-format", config.chat_format,
                    "How messages are written: " + absl::StrJoin(ChatFormatNames(), ", ") +
                        ", or none; without it the model's chat_format.json or chat template "
                        "decides");
  serve->add_option("--threads", config.threads, "Threads of the model; 0: all")
      ->capture_default_str();
  serve->add_option("--slots", config.slots, "Sessions and forks live at one time")
      ->capture_default_str();
  serve
      ->add_option("--kv-pages", config.kv_pages,
                   "Pages of 256 tokens for attention, shared by all sessions")
      ->capture_default_str();
  serve
      ->add_option(
          "--host-states", config.host_state_bytes,
          "Memory for states of each model that left their slot, e.g. 8GiB, so that going on "
          "from them needs no file; 0: none. Without it 2GiB with a GPU, and none with a CPU, for "
          "which files that the system caches are as fast")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
  serve->add_option("--max-context", config.limits.max_context_tokens, "Tokens a session may have")
      ->capture_default_str();
  serve
      ->add_option("--max-append-tokens", config.limits.max_append_tokens,
                   "Tokens one call may read")
      ->capture_default_str();
  serve
      ->add_option("--max-generate-tokens", config.limits.max_generate_tokens,
                   "Tokens one call may generate")
      ->capture_default_str();
  serve
      ->add_option("--checkpoint-every", config.checkpoint_every,
                   "Capture a state at each multiple of so many tokens; 0: only at ends of calls")
      ->capture_default_str();
  serve
      ->add_option("--drain-timeout", durations.drain_seconds,
                   "Seconds that running calls get after SIGTERM")
      ->capture_default_str();
  serve
      ->add_option(
          "--reserved-disk", config.reserved_disk_bytes,
          "Refuse new content when the disk has less left, e.g. 64MiB; deleting still works")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->default_str("64MiB");
  AddMaintenance(serve, config, durations.scrub_hours);
  AddCodecs(*serve, config);
  AddRetention(*serve, options);
  serve->add_flag("--accept-data-loss", config.accept_data_loss,
                  "Serve a library that lacks acknowledged commits; what is there is the truth");
  serve->add_option("--log-level", options.log_level, "debug, info, warning, error or off")
      ->capture_default_str();
  serve->add_flag("--log-json", options.log_json, "Log one JSON object per line");
  serve->set_config("--config", "", "Read these flags from a file (TOML or INI)");
}

struct CheckOptions {
  std::string directory, dtype = "float32", state_dtype = "float32", device = "cpu";
  double tolerance = 1e-3;
};

void AddChecks(CLI::App& app, CheckOptions& options) {
  CLI::App* model = app.add_subcommand(
      "check-model", "Compare a model with the reference logits in DIR/golden.safetensors");
  model->add_option("DIR", options.directory, "Folder of the model")->required();
  model->add_option("--dtype", options.dtype, "Compute precision: float32 or bfloat16")
      ->capture_default_str();
  model->add_option("--state-dtype", options.state_dtype, kStateDTypeHelp)->capture_default_str();
  model->add_option("--device", options.device, kDeviceHelp)->capture_default_str();
  model
      ->add_option("--tolerance", options.tolerance,
                   "Largest absolute error of a logit in float32; bfloat16 goes by the best tokens")
      ->capture_default_str();
  CLI::App* tokenizer = app.add_subcommand(
      "check-tokenizer", "Compare DIR/tokenizer.json with the cases in DIR/golden.json");
  tokenizer->add_option("DIR", options.directory, "Folder of the tokenizer")->required();
}

void AddLibrary(CLI::App& app, LibraryCommand& command) {
  CLI::App* library = app.add_subcommand(
      "library", "Back up, restore and verify a library that no server has open");
  library->require_subcommand(1);
  CLI::App* backup =
      library->add_subcommand("backup", "Copy a stopped library; only what is new is copied");
  backup->add_option("DIR", command.directory, "Folder of the library")->required();
  backup->add_option("BACKUPDIR", command.backups, "Folder of backups; made if missing")
      ->required();
  backup
      ->add_option("--keep", command.keep, "Delete the oldest until so many are left; 0: keep all")
      ->check(CLI::NonNegativeNumber);
  backup->callback([&] { command.action = LibraryCommand::Action::kBackup; });
  CLI::App* restore =
      library->add_subcommand("restore", "Make a library in a new folder from a verified backup");
  restore->add_option("BACKUPDIR", command.backups, "Folder of backups")->required();
  restore->add_option("NEWDIR", command.directory, "Folder of the new library; empty or missing")
      ->required();
  restore->add_option("--backup", command.id, "Which backup; without it the newest complete one")
      ->check(CLI::PositiveNumber);
  restore->callback([&] { command.action = LibraryCommand::Action::kRestore; });
  CLI::App* verify = library->add_subcommand(
      "verify", "Read all that a stopped library, or a backup, holds; changes nothing");
  verify->add_option("DIR", command.directory, "Folder of a library or of backups")->required();
  verify->add_option("--backup", command.id, "Which backup; without it the newest complete one")
      ->check(CLI::PositiveNumber);
  verify->callback([&] { command.action = LibraryCommand::Action::kVerify; });
  CLI::App* list = library->add_subcommand("list", "List the backups in a folder");
  list->add_option("BACKUPDIR", command.backups, "Folder of backups")->required();
  list->callback([&] { command.action = LibraryCommand::Action::kList; });
}

int Main(int argc, char** argv) {
  CLI::App app("Anabranch keeps what language models have read: a server of durable model states");
  app.name("anabranchd");
  app.set_version_flag("--version", std::string("anabranchd ") + kVersion);
  app.require_subcommand(1);
  ServeOptions serve;
  Durations durations = {absl::ToInt64Seconds(serve.config.drain_timeout),
                         absl::ToInt64Hours(serve.config.scrub_every)};
  CheckOptions check;
  AddServe(app, serve, durations);
  AddChecks(app, check);
  LibraryCommand library;
  AddLibrary(app, library);
  CLI11_PARSE(app, argc, argv);
  serve.config.drain_timeout = absl::Seconds(durations.drain_seconds);
  serve.config.scrub_every = absl::Hours(durations.scrub_hours);
  EvictionBudget& budget = serve.config.retention.budget;
  if (budget.low_bytes == 0) budget.low_bytes = budget.high_bytes / 10 * 9;
  if (app.got_subcommand("serve")) return RunServe(serve);
  if (app.got_subcommand("library")) return RunLibraryCommand(library);
  if (app.got_subcommand("check-tokenizer")) return RunCheckTokenizerCommand(check.directory);
  return RunCheckModelCommand(check.directory, check.dtype, check.state_dtype, check.device,
                              check.tolerance);
}

}  // namespace
}  // namespace anabranch

int main(int argc, char** argv) {
  try {
    return anabranch::Main(argc, argv);
  } catch (const std::exception& error) {  // of a library, out of memory at worst
    std::fprintf(stderr, "anabranchd: %s\n", error.what());
    return 1;
  }
}
