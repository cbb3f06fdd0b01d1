// The process that service_crash_test kills: a server that imports a bundle, or that re-encodes its
// library in the background, until it is at a crash point for the n-th time.
//   service_crash_driver POINT N MODEL LIBRARY [BUNDLE]
// Ends with 7 if it does not get there in time, with 2 to 6 if something fails before.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "absl/time/clock.h"
#include "clients/cpp/bundle_file.h"
#include "statestore/base/crash_point.h"
#include "tests/e2e/test_server.h"

namespace {

using anabranch::CrashPoint;

constexpr absl::Duration kPatience = absl::Seconds(60);

CrashPoint armed = CrashPoint::kCount;
std::atomic<int> left{0};

void DieAtArmedPoint(CrashPoint point) {
  if (point == armed && left.fetch_sub(1) == 1) kill(getpid(), SIGKILL);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5 || argc > 6) return 2;
  for (int i = 0; i < static_cast<int>(CrashPoint::kCount); ++i) {
    if (std::strcmp(anabranch::kCrashPointNames[i], argv[1]) == 0) {
      armed = static_cast<CrashPoint>(i);
    }
  }
  if (armed == CrashPoint::kCount) return 3;
  left = std::atoi(argv[2]);
  anabranch::crash_hook = DieAtArmedPoint;
  anabranch::ServerConfig config = anabranch::TestConfig(argv[3], argv[4]);
  if (armed == CrashPoint::kReencodingStep) {
    config.reencoding.near_after = absl::Milliseconds(1);
    config.reencoding.interval = absl::Milliseconds(1);
  }
  const auto server = anabranch::Server::Start(config);
  if (!server.ok()) return 4;
  if (argc == 6) {
    anabranch::Client client(anabranch::ClientOptions{.address = (*server)->address()});
    return anabranch::ImportFromFile(client, {}, argv[5]).ok() ? 5 : 6;
  }
  absl::SleepFor(kPatience);
  _exit(7);
}
