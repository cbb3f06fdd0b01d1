// Health follows the library: what cannot be written is not announced as served.
#include "service/health_monitor.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>

#include "absl/time/clock.h"
#include "tests/service/manual_store.h"

namespace anabranch {
namespace {

class RecordedHealth final : public grpc::HealthCheckServiceInterface {
 public:
  void SetServingStatus(const std::string& name, bool serving) override {
    absl::MutexLock lock(&mutex_);
    serving_[name] = serving;
  }
  void SetServingStatus(bool) override {}
  bool Serving(const std::string& name) {
    absl::MutexLock lock(&mutex_);
    return serving_.at(name);
  }
  // Within a second, or the test fails.
  bool Becomes(const std::string& name, bool serving) {
    for (int i = 0; i < 100; ++i) {
      if (Serving(name) == serving) return true;
      absl::SleepFor(absl::Milliseconds(10));
    }
    return false;
  }

 private:
  absl::Mutex mutex_;
  std::map<std::string, bool> serving_;
};

void SetReadOnly(ManualStore& store, bool read_only) {
  absl::MutexLock lock(&store.mutex);
  store.current.read_only = read_only;
}

absl::Status Running() { return absl::OkStatus(); }

TEST(HealthMonitorTest, AReadOnlyLibraryStopsWritersAndKeepsReaders) {
  ManualStore store;
  RecordedHealth health;
  HealthMonitor monitor(&health, &store, Running);
  EXPECT_TRUE(health.Serving(""));
  EXPECT_TRUE(health.Serving("anabranch.v1.Sessions"));
  SetReadOnly(store, true);
  EXPECT_TRUE(health.Becomes("anabranch.v1.Sessions", false));
  EXPECT_TRUE(health.Becomes("", false));
  EXPECT_FALSE(monitor.healthy());
  EXPECT_TRUE(health.Serving("anabranch.v1.States"));
  EXPECT_TRUE(health.Serving("anabranch.v1.Admin"));
  SetReadOnly(store, false);
  EXPECT_TRUE(health.Becomes("anabranch.v1.Sessions", true));
}

TEST(HealthMonitorTest, ALostEngineStopsWritersForGood) {
  ManualStore store;
  RecordedHealth health;
  std::atomic<bool> lost = false;
  HealthMonitor monitor(&health, &store, [&lost] {
    return lost ? absl::UnavailableError("the GPU is lost") : absl::OkStatus();
  });
  EXPECT_TRUE(monitor.healthy());
  EXPECT_TRUE(monitor.engine_failure().ok());
  lost = true;
  EXPECT_TRUE(health.Becomes("anabranch.v1.Sessions", false));
  EXPECT_TRUE(health.Serving("anabranch.v1.States"));
  EXPECT_EQ(monitor.engine_failure(), absl::UnavailableError("the GPU is lost"));
  EXPECT_FALSE(monitor.healthy());
}

TEST(HealthMonitorTest, DrainingStopsEverythingForGood) {
  ManualStore store;
  RecordedHealth health;
  HealthMonitor monitor(&health, &store, Running);
  monitor.StartDraining();
  for (const char* name :
       {"", "anabranch.v1.Sessions", "anabranch.v1.States", "anabranch.v1.Admin"}) {
    EXPECT_FALSE(health.Serving(name)) << name;
  }
  EXPECT_FALSE(monitor.healthy());
}

}  // namespace
}  // namespace anabranch
