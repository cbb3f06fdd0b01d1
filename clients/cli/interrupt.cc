#include "clients/cli/interrupt.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>

namespace anabranch::cli {
namespace {

// A signal handler may not take locks, so it writes a byte that the watcher's thread reads.
std::atomic<int> pipe_end{-1};

void OnInterrupt(int) {
  int saved = errno;
  int end = pipe_end.load();
  if (end >= 0) {
    [[maybe_unused]] ssize_t written = write(end, "i", 1);
  }
  errno = saved;
}

}  // namespace

struct InterruptScope::Handler {
  std::array<int, 2> ends = {-1, -1};
  struct sigaction before = {};
};

InterruptScope::InterruptScope(Cancellation& cancel) : handler_(new Handler) {
  if (pipe(handler_->ends.data()) != 0) return;  // Ctrl-C then ends the program, as it would anyway
  pipe_end = handler_->ends[1];
  struct sigaction action = {};
  action.sa_handler = OnInterrupt;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &handler_->before);
  watcher_ = std::thread([&cancel, end = handler_->ends[0]] {
    char byte = 0;
    while (read(end, &byte, 1) < 0 && errno == EINTR) {
    }
    if (byte == 'i') cancel.Cancel();
  });
}

InterruptScope::~InterruptScope() {
  if (watcher_.joinable()) {
    sigaction(SIGINT, &handler_->before, nullptr);
    pipe_end = -1;
    [[maybe_unused]] ssize_t written = write(handler_->ends[1], "q", 1);
    watcher_.join();
    for (int end : handler_->ends) close(end);
  }
  delete handler_;
}

}  // namespace anabranch::cli
