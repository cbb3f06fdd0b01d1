// Servers for tests: in this process, or as a process of its own that can be killed.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "service/server.h"

namespace anabranch {

// A folder that is removed with everything in it.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Folder of a tiny model (random weights, 257 tokens, no tokenizer) such as "mamba2".
std::string GoldenModel(const std::string& name);
// All of their names, so that adding one adds it to the tests over models.
std::vector<std::string> GoldenModelNames();
// Folder of the embedded default model, with tokenizer and chat format.
std::string RecallModel();

// Any free port, one model thread, no metrics; on the device of ANABRANCH_TEST_DEVICE, if that is
// set.
ServerConfig TestConfig(const std::string& model, const std::string& data);

// `anabranchd serve` as a process.
class ServerProcess {
 public:
  // Starts it and waits for the line that says where it serves. `extra`: more flags, also in
  // the place of those that tests have by default.
  ServerProcess(const std::string& model, const std::string& data,
                const std::vector<std::string>& extra = {});
  ~ServerProcess();  // kills it if it runs

  const std::string& address() const { return address_; }  // empty: it did not start
  const std::string& ready_line() const { return ready_line_; }
  // SIGKILL, and waits until it is gone.
  void Kill();
  void Signal(int number);
  // Waits for its end; the exit status, or -1 after a signal.
  int Wait();

 private:
  pid_t pid_ = -1;
  std::string address_, ready_line_;
};

// Runs `anabranchd` with arguments to its end.
struct CommandResult {
  int exit_status = -1;
  std::string output;  // stdout and stderr
};
CommandResult RunAnabranchd(const std::vector<std::string>& arguments);

}  // namespace anabranch
