#include "clients/cli/line_editor.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <istream>
#include <memory>

// readline's headers need stdio's first.
#include <readline/history.h>
#include <readline/readline.h>

namespace anabranch::cli {
namespace {

// readline's callback interface has no place for context: this is the line being read.
struct Reading {
  bool done = false;
  char* text = nullptr;  // null at the end of input
};
Reading reading;
volatile std::sig_atomic_t interrupted = 0;

void OnInterrupt(int) { interrupted = 1; }

void OnLine(char* text) {
  reading.done = true;
  reading.text = text;
  rl_callback_handler_remove();
}

// Waits for a key or Ctrl-C. False if Ctrl-C came. The signal is blocked except inside ppoll, so it
// cannot slip in between the check and the wait.
bool WaitForKey(const sigset_t& open_mask) {
  pollfd input = {.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  while (ppoll(&input, 1, nullptr, &open_mask) < 0) {
    if (interrupted) return false;
    if (errno != EINTR) return true;
  }
  return true;
}

}  // namespace

LineEditor::LineEditor(std::istream& in, bool terminal) : in_(in), terminal_(terminal) {
  if (!terminal_) return;
  rl_readline_name = "anabranch";
  rl_catch_signals = 0;  // Ctrl-C is handled below
  rl_bind_key('\t', rl_insert);
}

LineEditor::Line LineEditor::Read(absl::string_view prompt) {
  if (terminal_) return ReadTerminal(prompt);
  Line line{Kind::kText, ""};
  if (!std::getline(in_, line.text)) line.kind = Kind::kEnd;
  return line;
}

LineEditor::Line LineEditor::ReadTerminal(absl::string_view prompt) {
  interrupted = 0;
  reading = Reading();
  struct sigaction action = {}, before = {};
  action.sa_handler = OnInterrupt;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &before);
  sigset_t blocked, open_mask;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGINT);
  pthread_sigmask(SIG_BLOCK, &blocked, &open_mask);
  rl_callback_handler_install(std::string(prompt).c_str(), OnLine);
  while (!reading.done) {
    if (!WaitForKey(open_mask)) {
      std::fputs("^C\n", stdout);
      rl_callback_sigcleanup();
      rl_callback_handler_remove();
      break;
    }
    rl_callback_read_char();
  }
  pthread_sigmask(SIG_SETMASK, &open_mask, nullptr);
  sigaction(SIGINT, &before, nullptr);
  if (!reading.done) return {Kind::kInterrupted, ""};
  if (reading.text == nullptr) return {Kind::kEnd, ""};
  std::unique_ptr<char, decltype(&std::free)> owned(reading.text, std::free);
  if (*owned != '\0') add_history(owned.get());
  return {Kind::kText, owned.get()};
}

}  // namespace anabranch::cli
