#include "statestore/base/host_threads.h"

#include <atomic>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace anabranch {
namespace {

TEST(HostThreadsTest, EveryIndexOnceWhateverTheCount) {
  for (const uint64_t bytes : {uint64_t{1}, 2 * kWorthThreads}) {
    for (const size_t count : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> times(count);
      ForEachOnHost(bytes, count, [&](size_t i) { times[i].fetch_add(1); });
      for (size_t i = 0; i < count; ++i) EXPECT_EQ(times[i].load(), 1) << i << " of " << count;
    }
  }
}

TEST(HostThreadsTest, ManyCallersAndCallsInsideCallsGetTheirs) {
  std::vector<std::thread> callers;
  std::atomic<int64_t> sum{0};
  for (int caller = 0; caller < 6; ++caller) {
    callers.emplace_back([&] {
      for (int call = 0; call < 100; ++call) {
        ForEachOnHost(kWorthThreads, 10, [&](size_t i) {
          ForEachOnHost(kWorthThreads, 3, [&](size_t j) { sum.fetch_add(10 * i + j); });
        });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum.load(), 600 * (10 * 45 * 3 + 10 * 3));
}

}  // namespace
}  // namespace anabranch
