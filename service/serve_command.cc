#include "service/serve_command.h"

#include <grpc/support/log.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "service/logging.h"
#include "service/server.h"

namespace anabranch {
namespace {

// gRPC's own messages are for debugging; ours say what a user needs.
void ForwardGrpcLog(gpr_log_func_args* args) {
  LogEvent(LogLevel::kDebug, "grpc", {{"message", std::string(args->message)}});
}

sigset_t BlockStopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return signals;
}

// Weights are read from mapped files; one that somebody truncates gives SIGBUS here. What was
// acknowledged is on disk, so ending is safe; ending without a word would not help anybody.
void ExplainBusError(int signal_number) {
  constexpr char kMessage[] =
      "anabranchd: a mapped file (of the model?) was truncated while in use, or its disk failed; "
      "replace files by renaming new ones over them\n";
  // A handler may do little else; the default action follows.
  if (write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1) < 0) return;
  raise(signal_number);
}

void SetUpBusErrors() {
  struct sigaction action = {};
  action.sa_handler = ExplainBusError;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGBUS, &action, nullptr);
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "anabranchd: %s\n", std::string(status.message()).c_str());
  return 1;
}

void SayReady(const Server& server, const ServerConfig& config) {
  const std::string metrics =
      server.metrics_address().empty() ? "off" : "http://" + server.metrics_address() + "/metrics";
  std::printf("anabranchd: serving %s on %s (library %s, metrics %s)\n",
              server.model_names().c_str(), server.address().c_str(), config.data.c_str(),
              metrics.c_str());
  std::fflush(stdout);
}

// Until a signal asks for the end, or the server cannot go on: then 0.
int WaitForSignal(const sigset_t& signals, const Server& server) {
  constexpr timespec kLook = {.tv_sec = 0, .tv_nsec = 500'000'000};
  while (server.failure().ok()) {
    const int signal_number = sigtimedwait(&signals, nullptr, &kLook);
    if (signal_number > 0) return signal_number;
  }
  return 0;
}

}  // namespace

int RunServe(const ServeOptions& options) {
  const sigset_t signals = BlockStopSignals();
  SetUpBusErrors();
  const absl::Status logging = SetUpLogging(options.log_level, options.log_json);
  if (!logging.ok()) return Fail(logging);
  gpr_set_log_function(ForwardGrpcLog);
  auto server = Server::Start(options.config);
  if (!server.ok()) return Fail(server.status());
  SayReady(**server, options.config);
  const int signal_number = WaitForSignal(signals, **server);
  const absl::Status failure = (*server)->failure();
  LogEvent(LogLevel::kInfo, "draining", {{"signal", int64_t{signal_number}}});
  (*server)->Drain(options.config.drain_timeout);
  if (!failure.ok()) return Fail(failure);
  LogEvent(LogLevel::kInfo, "stopped", {});
  return 0;
}

}  // namespace anabranch
