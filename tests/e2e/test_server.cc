#include "tests/e2e/test_server.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

namespace anabranch {
namespace {

namespace fs = std::filesystem;

// Starts anabranchd with its output in a pipe; the reading end goes to *output.
pid_t Spawn(const std::vector<std::string>& arguments, bool with_stderr, int* output) {
  int fds[2];
  if (pipe(fds) != 0) return -1;
  std::vector<char*> argv = {const_cast<char*>(ANABRANCHD_PATH)};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(fds[1], STDOUT_FILENO);
    if (with_stderr) dup2(fds[1], STDERR_FILENO);
    close(fds[0]);
    close(fds[1]);
    execv(ANABRANCHD_PATH, argv.data());
    _exit(127);
  }
  close(fds[1]);
  *output = fds[0];
  return pid;
}

int ExitStatus(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

std::string ReadLine(int fd) {
  std::string line;
  char c;
  while (read(fd, &c, 1) == 1 && c != '\n') line.push_back(c);
  return line;
}

}  // namespace

TempDir::TempDir() {
  std::string pattern = (fs::temp_directory_path() / "anabranch-test-XXXXXX").string();
  path_ = mkdtemp(pattern.data());
}

TempDir::~TempDir() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string GoldenModel(const std::string& name) {
  return std::string(ANABRANCH_SOURCE_DIR) + "/tests/golden/models/" + name;
}

std::vector<std::string> GoldenModelNames() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(GoldenModel(""))) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string RecallModel() { return std::string(ANABRANCH_SOURCE_DIR) + "/deploy/models/recall"; }

ServerConfig TestConfig(const std::string& model, const std::string& data) {
  ServerConfig config;
  config.models = {{.directory = model}};
  config.data = data;
  config.listen = "127.0.0.1:0";
  config.metrics = "off";
  config.threads = 1;
  config.slots = 8;
  config.kv_pages = 64;
  if (const char* device = getenv("ANABRANCH_TEST_DEVICE"); device != nullptr) {
    config.device = device;
  }
  return config;
}

ServerProcess::ServerProcess(const std::string& model, const std::string& data,
                             const std::vector<std::string>& extra) {
  std::vector<std::string> arguments = {"serve", "--model",  model,        "--data",
                                        data,    "--listen", "127.0.0.1:0"};
  const std::pair<std::string, std::string> defaults[] = {{"--metrics", "off"},
                                                          {"--threads", "1"},
                                                          {"--slots", "8"},
                                                          {"--kv-pages", "64"},
                                                          {"--log-level", "error"}};
  for (const auto& [flag, value] : defaults) {
    if (std::find(extra.begin(), extra.end(), flag) != extra.end()) continue;
    arguments.insert(arguments.end(), {flag, value});
  }
  arguments.insert(arguments.end(), extra.begin(), extra.end());
  int output = -1;
  pid_ = Spawn(arguments, /*with_stderr=*/false, &output);
  if (pid_ < 0) return;
  ready_line_ = ReadLine(output);
  close(output);
  const size_t on = ready_line_.find(" on ");
  if (on == std::string::npos) return;
  const size_t begin = on + 4;
  address_ = ready_line_.substr(begin, ready_line_.find(' ', begin) - begin);
}

ServerProcess::~ServerProcess() { Kill(); }

void ServerProcess::Kill() {
  if (pid_ < 0) return;
  // A server that served has no other reason to be gone: a crash must not pass for the kill.
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) == pid_) {
    if (!address_.empty()) ADD_FAILURE() << "the server ended by itself, wait status " << status;
    pid_ = -1;
    return;
  }
  Signal(SIGKILL);
  Wait();
}

void ServerProcess::Signal(int number) {
  if (pid_ > 0) kill(pid_, number);
}

int ServerProcess::Wait() {
  const int status = pid_ > 0 ? ExitStatus(pid_) : -1;
  pid_ = -1;
  return status;
}

CommandResult RunAnabranchd(const std::vector<std::string>& arguments) {
  CommandResult result;
  int output = -1;
  const pid_t pid = Spawn(arguments, /*with_stderr=*/true, &output);
  if (pid < 0) return result;
  char buffer[4096];
  ssize_t count;
  while ((count = read(output, buffer, sizeof(buffer))) > 0) result.output.append(buffer, count);
  close(output);
  result.exit_status = ExitStatus(pid);
  return result;
}

}  // namespace anabranch
