#include "statestore/base/host_threads.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace anabranch {
namespace {

// A checksum takes about 4 GB/s a thread, a link to a device 55.
constexpr unsigned kMostThreads = 16;

// One call. Helpers may look at it when the caller has gone: they find no index left then, and do
// not touch the body.
class Job {
 public:
  Job(size_t count, absl::FunctionRef<void(size_t)> body) : count_(count), body_(body) {}

  void Work() {
    size_t done = 0;
    for (size_t i = next_.fetch_add(1); i < count_; i = next_.fetch_add(1), ++done) body_(i);
    if (done == 0) return;
    absl::MutexLock lock(&mutex_);
    finished_ += done;
  }
  void WaitForAll() {
    absl::MutexLock lock(&mutex_);
    const auto all = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return finished_ == count_; };
    mutex_.Await(absl::Condition(&all));
  }

 private:
  const size_t count_;
  const absl::FunctionRef<void(size_t)> body_;
  std::atomic<size_t> next_{0};
  absl::Mutex mutex_;
  size_t finished_ ABSL_GUARDED_BY(mutex_) = 0;
};

class Helpers {
 public:
  Helpers() {
    const unsigned threads = std::min(std::thread::hardware_concurrency(), kMostThreads);
    for (unsigned i = 1; i < threads; ++i) threads_.emplace_back([this] { Run(); });
  }
  size_t size() const { return threads_.size(); }
  void Offer(const std::shared_ptr<Job>& job, size_t times) {
    absl::MutexLock lock(&mutex_);
    for (size_t i = 0; i < times; ++i) offered_.push_back(job);
  }

 private:
  [[noreturn]] void Run() {
    const auto offered = [this]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !offered_.empty(); };
    for (;;) {
      std::shared_ptr<Job> job;
      {
        absl::MutexLock lock(&mutex_);
        mutex_.Await(absl::Condition(&offered));
        job = std::move(offered_.front());
        offered_.pop_front();
      }
      job->Work();
    }
  }

  absl::Mutex mutex_;
  std::deque<std::shared_ptr<Job>> offered_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace

void ForEachOnHost(uint64_t bytes, size_t count, absl::FunctionRef<void(size_t)> body) {
  if (bytes < kWorthThreads || count < 2) {
    for (size_t i = 0; i < count; ++i) body(i);
    return;
  }
  static Helpers& helpers = *new Helpers;  // never ends: calls may come until the process does
  const auto job = std::make_shared<Job>(count, body);
  helpers.Offer(job, std::min(helpers.size(), count - 1));
  job->Work();
  job->WaitForAll();
}

absl::Status ForEachBlock(absl::Span<const std::string> blocks,
                          absl::FunctionRef<absl::Status(size_t)> body) {
  uint64_t bytes = 0;
  for (const std::string& block : blocks) bytes += block.size();
  std::vector<absl::Status> statuses(blocks.size());
  ForEachOnHost(bytes, blocks.size(), [&](size_t i) { statuses[i] = body(i); });
  absl::Status first;
  for (const absl::Status& status : statuses) first.Update(status);
  return first;
}

}  // namespace anabranch
