#include "service/worker_pool.h"

#include <gtest/gtest.h>

#include <atomic>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "service/call_tracker.h"
#include "service/error_info.h"

namespace anabranch {
namespace {

TEST(WorkerPoolTest, RunsWhatWasQueuedBeforeItEnds) {
  std::atomic<int> ran{0};
  {
    WorkerPool pool(2, 1000);
    for (int i = 0; i < 500; ++i) EXPECT_TRUE(pool.TryRun([&] { ++ran; }));
  }
  EXPECT_EQ(ran, 500);
}

TEST(WorkerPoolTest, RefusesNewCallsWhenFullButContinuesOldOnes) {
  absl::Notification go, started;
  std::atomic<int> ran{0};
  {
    WorkerPool pool(1, 2);
    pool.Run([&] {
      started.Notify();
      go.WaitForNotification();
    });
    started.WaitForNotification();
    EXPECT_TRUE(pool.TryRun([&] { ++ran; }));
    EXPECT_TRUE(pool.TryRun([&] { ++ran; }));
    EXPECT_FALSE(pool.TryRun([&] { ++ran; }));
    pool.Run([&] { ++ran; });
    go.Notify();
  }
  EXPECT_EQ(ran, 3);
}

TEST(CallTrackerTest, DrainingRefusesWorkAndWaitsForRunningCalls) {
  Metrics metrics;
  CallTracker tracker(&metrics);
  EXPECT_TRUE(tracker.AdmitWork().ok());
  CallPtr call = tracker.Begin("Append", "default", absl::InfiniteFuture());
  EXPECT_EQ(tracker.running(), 1);
  tracker.StartDraining();
  EXPECT_EQ(ErrorInfoOf(tracker.AdmitWork()).reason(), "DRAINING");
  EXPECT_TRUE(absl::IsUnavailable(tracker.AdmitWork()));
  EXPECT_FALSE(tracker.WaitUntilIdle(absl::Milliseconds(10)));
  call = nullptr;
  EXPECT_TRUE(tracker.WaitUntilIdle(absl::ZeroDuration()));
}

TEST(CallTrackerTest, InterruptedCallsSayWhy) {
  Metrics metrics;
  CallTracker tracker(&metrics);
  const CallPtr cancelled = tracker.Begin("Append", "default", absl::InfiniteFuture());
  EXPECT_TRUE(cancelled->Interrupted().ok());
  cancelled->cancel->Cancel();
  EXPECT_TRUE(absl::IsCancelled(cancelled->Interrupted()));
  const CallPtr late = tracker.Begin("Append", "default", absl::Now() - absl::Seconds(1));
  EXPECT_TRUE(absl::IsDeadlineExceeded(late->Interrupted()));
}

TEST(MetricsTest, HistogramsAreCumulative) {
  Metrics metrics;
  for (int ms : {1, 3, 3, 400000}) {
    metrics.RecordCall("Append", absl::StatusCode::kOk, absl::Milliseconds(ms), v1::Usage());
  }
  const std::string text = metrics.Render({}, StoreStats(), JanitorTotals(), 0, false);
  for (const char* expected : {"anabranch_call_seconds_bucket{method=\"Append\",le=\"0.001\"} 1\n",
                               "anabranch_call_seconds_bucket{method=\"Append\",le=\"0.005\"} 3\n",
                               "anabranch_call_seconds_bucket{method=\"Append\",le=\"300\"} 3\n",
                               "anabranch_call_seconds_bucket{method=\"Append\",le=\"+Inf\"} 4\n",
                               "anabranch_call_seconds_count{method=\"Append\"} 4\n"}) {
    EXPECT_NE(text.find(expected), std::string::npos) << expected << text;
  }
}

TEST(MetricsTest, EachOfSeveralModelsHasLinesOfItsOwnBesideTheSums) {
  const auto busy = [](int64_t steps, int32_t running) {
    EngineStats stats;
    stats.steps = steps, stats.running = running;
    return stats;
  };
  const ModelGauges small = {"small", busy(3, 1), {}, {}};
  const ModelGauges large = {
      "large", busy(4, 2), {{"cuda:0", busy(3, 2)}, {"cuda:1", busy(1, 0)}}, {}};
  const auto render = [](const std::vector<ModelGauges>& models) {
    return Metrics().Render(models, StoreStats(), JanitorTotals(), 0, false);
  };
  const std::string both = render({small, large});
  for (const char* expected : {"anabranch_engine_steps_total 7\n", "anabranch_engine_running 3\n",
                               "anabranch_model_running{model=\"small\"} 1\n",
                               "anabranch_model_running{model=\"large\"} 2\n",
                               "anabranch_device_running{model=\"large\",device=\"cuda:0\"} 2\n"}) {
    EXPECT_NE(both.find(expected), std::string::npos) << expected << both;
  }
  const std::string alone = render({large});
  EXPECT_EQ(alone.find("model="), std::string::npos) << alone;
  EXPECT_NE(alone.find("anabranch_device_running{device=\"cuda:1\"} 0\n"), std::string::npos)
      << alone;
}

}  // namespace
}  // namespace anabranch
