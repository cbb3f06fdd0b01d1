// Ctrl-C while a call runs cancels the call instead of ending the program:
//
//   Cancellation cancel;
//   InterruptScope scope(cancel);
//   client.Generate(request, on_delta, &cancel);
#pragma once

#include <thread>

#include "clients/cpp/cancellation.h"

namespace anabranch::cli {

// From construction to destruction SIGINT cancels `cancel`; before and after, the previous handler
// stands. Not nestable, and one at a time in a process. `cancel` outlives it.
class InterruptScope {
 public:
  explicit InterruptScope(Cancellation& cancel);
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  struct Handler;
  Handler* handler_;
  std::thread watcher_;
};

}  // namespace anabranch::cli
