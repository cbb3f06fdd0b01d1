#include "service/health_monitor.h"

#include <string>
#include <utility>

#include "absl/time/time.h"
#include "service/logging.h"

namespace anabranch {
namespace {

constexpr absl::Duration kInterval = absl::Milliseconds(250);
constexpr const char* kReaders[] = {"anabranch.v1.States", "anabranch.v1.Admin"};
constexpr const char* kWriters[] = {"", "anabranch.v1.Sessions"};

}  // namespace

HealthMonitor::HealthMonitor(grpc::HealthCheckServiceInterface* health, const StateStore* store,
                             std::function<absl::Status()> engine)
    : health_(health), store_(store), engine_(std::move(engine)) {
  {
    absl::MutexLock lock(&mutex_);
    writable_ = !store_->stats().read_only;
    Publish();
  }
  thread_ = std::thread([this] { Loop(); });
}

HealthMonitor::~HealthMonitor() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void HealthMonitor::StartDraining() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  Publish();
}

bool HealthMonitor::healthy() const {
  absl::MutexLock lock(&mutex_);
  return writable_ && engine_failure_.ok() && !draining_;
}

absl::Status HealthMonitor::engine_failure() const {
  absl::MutexLock lock(&mutex_);
  return engine_failure_;
}

void HealthMonitor::Loop() {
  while (true) {
    const StoreStats stats = store_->stats();
    const absl::Status engine = engine_();
    absl::MutexLock lock(&mutex_);
    if (engine_failure_.ok() && !engine.ok()) {
      engine_failure_ = engine;
      LogEvent(LogLevel::kError, "engine_lost", {{"error", std::string(engine.message())}});
      Publish();
    }
    if (writable_ == stats.read_only) {
      writable_ = !stats.read_only;
      LogEvent(writable_ ? LogLevel::kInfo : LogLevel::kError, "library_writable",
               {{"writable", writable_}, {"reason", stats.read_only_reason}});
      Publish();
    }
    if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), kInterval)) return;
  }
}

void HealthMonitor::Publish() {
  for (const char* name : kReaders) health_->SetServingStatus(name, !draining_);
  const bool writes = writable_ && engine_failure_.ok() && !draining_;
  for (const char* name : kWriters) health_->SetServingStatus(name, writes);
}

}  // namespace anabranch
