// What durability costs: commits with and without the second sync of the high-water mark, beside a
// bare synced write of the same bytes; and the search for the deepest prefix.
//   build/bin/store_bench
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "absl/strings/str_cat.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

void ReportPercentiles(benchmark::State& state, std::vector<double> milliseconds) {
  std::sort(milliseconds.begin(), milliseconds.end());
  state.counters["p50_ms"] = milliseconds[milliseconds.size() / 2];
  state.counters["p99_ms"] = milliseconds[milliseconds.size() * 99 / 100];
}

template <typename Step>
void Measure(benchmark::State& state, Step step) {
  std::vector<double> milliseconds;
  for (auto _ : state) {
    const absl::Time start = absl::Now();
    step();
    milliseconds.push_back(absl::ToDoubleMilliseconds(absl::Now() - start));
  }
  ReportPercentiles(state, std::move(milliseconds));
}

void BareSyncedWrite(benchmark::State& state) {
  const TemporaryDirectory directory;
  const int file = open((directory.path() + "/file").c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
  const std::string bytes(state.range(0), 'b');
  Measure(state, [&] {
    if (write(file, bytes.data(), bytes.size()) < 0 || fdatasync(file) != 0) {
      state.SkipWithError("write failed");
    }
  });
  close(file);
}
BENCHMARK(BareSyncedWrite)->Arg(200)->Arg(1 << 20)->Iterations(300)->UseRealTime();

void CommitState(benchmark::State& state) {
  const TemporaryDirectory directory;
  StoreOptions options;
  options.directory = directory.path() + "/library";
  options.sync_high_water = state.range(1) != 0;
  const auto store = OpenStateStore(options).value();
  const std::string payload(state.range(0), 'p');
  int32_t token = 0;
  Measure(state, [&] {
    if (!store->CommitAndWait(Of(Put(MakeState({token++}), payload))).ok()) {
      state.SkipWithError("commit failed");
    }
  });
}
BENCHMARK(CommitState)
    ->ArgNames({"payload", "sync_mark"})
    ->ArgsProduct({{200, 1 << 20}, {0, 1}})
    ->Iterations(300)
    ->UseRealTime();

// 10,000 states of growing histories, of which none continues the one that is asked for but a short
// one: the search has to walk past them all.
void FindPrefixAmongManyStates(benchmark::State& state) {
  const TemporaryDirectory directory;
  StoreOptions options;
  options.directory = directory.path() + "/library";
  const auto store = OpenStateStore(options).value();
  std::vector<int32_t> history(100000);
  std::mt19937 random(1);
  for (int32_t& token : history) token = static_cast<int32_t>(random() % 50000);
  const StateRecord match = MakeState({history.begin(), history.begin() + 5});
  store->CommitAndWait(Of(Put(match))).IgnoreError();
  StateRecord parent = MakeState({7});
  store->CommitAndWait(Of(Put(parent))).IgnoreError();
  for (int group = 0; group < 100; ++group) {
    Mutation mutation;
    for (int i = 0; i < 100; ++i) {
      parent = MakeState(std::vector<int32_t>(10, i), &parent);
      mutation.operations.push_back(Put(parent));
    }
    store->CommitAndWait(std::move(mutation)).IgnoreError();
  }
  Measure(state, [&] {
    const auto found =
        store->FindPrefix(kTenant, "model-a", "cpu-float32", history, PrefixKind::kAny);
    if (!found.ok() || !found->has_value() || (*found)->id != match.id) {
      state.SkipWithError("wrong prefix");
    }
  });
}
BENCHMARK(FindPrefixAmongManyStates)->Iterations(100)->UseRealTime();

}  // namespace
}  // namespace anabranch

BENCHMARK_MAIN();
