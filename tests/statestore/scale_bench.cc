// How the library scales: commits of several writers, without and with the journal, beside a bare
// synced write of the same bytes, and opening, memory, reads and garbage collection at several
// sizes.
//   build/bin/scale_bench [--states 1000,10000,100000|none] [--payload 8192] [--commits 300]
// A bare write is one of as many writers as the commits have, to one file that they share.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

struct Flags {
  std::vector<int> states = {1000, 10000, 100000};
  int payload = 8192, commits = 300;
};

struct Times {
  std::vector<double> millis;

  template <typename Step>
  void Measure(Step step) {
    const absl::Time start = absl::Now();
    step();
    millis.push_back(absl::ToDoubleMilliseconds(absl::Now() - start));
  }
  double At(double part) {
    std::sort(millis.begin(), millis.end());
    const size_t last = millis.size() - 1;
    return millis.empty() ? 0 : millis[static_cast<size_t>(part * static_cast<double>(last))];
  }
};

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "scale_bench: %s\n", what.c_str());
  std::exit(1);
}

void Check(const absl::Status& status) {
  if (!status.ok()) Die(status.ToString());
}

// Incompressible, and cheap to make.
std::string Noise(size_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string noise(bytes, '\0');
  for (size_t i = 0; i + 8 <= bytes; i += 8) {
    const uint64_t word = random();
    std::memcpy(noise.data() + i, &word, 8);
  }
  return noise;
}

int64_t ResidentBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    int64_t kib = 0;
    if (std::sscanf(line.c_str(), "VmRSS: %ld", &kib) == 1) return kib * 1024;
  }
  return 0;
}

std::unique_ptr<StateStore> Open(const std::string& directory, StoreOptions options = {}) {
  options.directory = directory;
  options.block_cache_bytes = 64u << 20;
  auto store = OpenStateStore(options);
  Check(store.status());
  return *std::move(store);
}

// --- Commits -------------------------------------------------------------------------------------

// What `step` takes in each of `writers` threads, all at once; the seconds for all go to *seconds.
template <typename Step>
Times InThreads(int writers, int count, double* seconds, Step step) {
  std::vector<Times> times(writers);
  std::vector<std::thread> threads;
  const absl::Time start = absl::Now();
  for (int writer = 0; writer < writers; ++writer) {
    threads.emplace_back([&, writer] {
      for (int i = 0; i < count; ++i) step(writer, i, times[writer]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  *seconds = absl::ToDoubleSeconds(absl::Now() - start);
  Times all;
  for (Times& each : times) {
    all.millis.insert(all.millis.end(), each.millis.begin(), each.millis.end());
  }
  return all;
}

// Each writer appends to one file that all share, and syncs it.
Times BareWrites(const std::string& bytes, int writers, int count, double* seconds) {
  const TemporaryDirectory directory;
  const int file = open((directory.path() + "/file").c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
  Times times = InThreads(writers, count, seconds, [&](int, int, Times& own) {
    own.Measure([&] {
      if (write(file, bytes.data(), bytes.size()) < 0 || fdatasync(file) != 0) Die("write failed");
    });
  });
  close(file);
  return times;
}

Times Commits(const std::string& payload, int writers, int count, bool journal, double* seconds) {
  const TemporaryDirectory directory;
  StoreOptions options;
  if (!journal) options.journal_bytes = 0;
  const auto store = Open(directory.path() + "/library", options);
  return InThreads(writers, count, seconds, [&](int writer, int i, Times& own) {
    Mutation mutation = Of(Put(MakeState({writer, i}), payload));
    own.Measure([&] { Check(store->CommitAndWait(std::move(mutation))); });
  });
}

void MeasureCommits(const Flags& flags, int payload_bytes) {
  const std::string payload = Noise(payload_bytes, 1);
  for (int writers : {1, 8, 64}) {
    double bare_seconds = 0, two_seconds = 0, seconds = 0;
    Times bare = BareWrites(payload, writers, flags.commits, &bare_seconds);
    Times two = Commits(payload, writers, flags.commits, false, &two_seconds);
    Times commits = Commits(payload, writers, flags.commits, true, &seconds);
    const int all = writers * flags.commits;
    std::printf(
        "| %d | %d | %.2f / %.2f | %.2f / %.2f | %.2f / %.2f | %.1f, %.1f | %.0f, %.0f | "
        "%.0f |\n",
        payload_bytes, writers, two.At(0.5), two.At(0.99), commits.At(0.5), commits.At(0.99),
        bare.At(0.5), bare.At(0.99), two.At(0.5) / bare.At(0.5), commits.At(0.5) / bare.At(0.5),
        all / two_seconds, all / seconds, all / bare_seconds);
    std::fflush(stdout);
  }
}

// --- Sizes ---------------------------------------------------------------------------------------

// Lines of 20 states of 10 tokens.
std::vector<std::string> Fill(StateStore& store, int states, int payload) {
  std::vector<std::string> ids;
  StateRecord last;
  Mutation mutation;
  for (int i = 0; i < states; ++i) {
    const bool root = i % 20 == 0;
    last = MakeState(std::vector<int32_t>(10, i), root ? nullptr : &last);
    ids.push_back(last.id);
    mutation.operations.push_back(Put(last, Noise(payload, i)));
    if (mutation.operations.size() == 100 || i + 1 == states) {
      Check(store.CommitAndWait(std::exchange(mutation, {})));
    }
  }
  return ids;
}

Times Reads(StateStore& store, const std::vector<std::string>& ids, int count,
            const std::atomic<bool>* stop = nullptr) {
  Times times;
  std::mt19937 random(3);
  for (int i = 0; i < count && (stop == nullptr || !*stop); ++i) {
    const std::string& id = ids[random() % ids.size()];
    times.Measure([&] { Check(store.GetPayload(kTenant, id).status()); });
  }
  return times;
}

Times Listings(StateStore& store) {
  Times times;
  PageRequest page{100, ""};
  for (int i = 0; i < 100; ++i) {
    times.Measure([&] {
      const auto listed = store.ListStates(kTenant, {}, page);
      Check(listed.status());
      page.token = listed->next;
    });
  }
  return times;
}

// Deletes whole lines until half are gone, ends of lines first.
std::vector<std::string> DeleteHalf(StateStore& store, const std::vector<std::string>& ids) {
  std::vector<std::string> kept;
  Mutation mutation;
  for (size_t line = 0; line < ids.size(); line += 20) {
    const size_t end = std::min(line + 20, ids.size());
    if (line / 20 % 2 == 0) {
      for (size_t i = end; i-- > line;) mutation.operations.push_back(DeleteState{kTenant, ids[i]});
    } else {
      kept.insert(kept.end(), ids.begin() + static_cast<std::ptrdiff_t>(line),
                  ids.begin() + static_cast<std::ptrdiff_t>(end));
    }
    if (mutation.operations.size() >= 100) {
      Check(store.CommitAndWait(std::exchange(mutation, {})));
    }
  }
  Check(store.CommitAndWait(std::move(mutation)));
  return kept;
}

void MeasureSize(const Flags& flags, int states) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/library";
  const int64_t before = ResidentBytes();
  std::vector<std::string> ids;
  {
    const auto store = Open(path);
    ids = Fill(*store, states, flags.payload);
  }
  Times opening;
  std::unique_ptr<StateStore> store;
  opening.Measure([&] { store = Open(path); });
  const int64_t opened = ResidentBytes();
  Times listings = Listings(*store), status;
  Times idle = Reads(*store, ids, 2000);
  for (int i = 0; i < 50; ++i) status.Measure([&] { (void)store->stats(); });
  const std::vector<std::string> kept = DeleteHalf(*store, ids);
  std::atomic<bool> stop{false};
  Times busy;
  std::thread reader([&] { busy = Reads(*store, kept, 1 << 30, &stop); });
  const absl::Time start = absl::Now();
  const auto report = store->CollectGarbage({});
  Check(report.status());
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  stop = true;
  reader.join();
  std::printf(
      "| %d | %.0f | %.0f (%+.0f) | %.2f / %.2f | %.3f / %.3f | %.3f | %.1f: %.0f to %.0f | "
      "%.3f / %.3f |\n",
      states, opening.At(1), static_cast<double>(ResidentBytes()) / (1 << 20),
      static_cast<double>(opened - before) / (1 << 20), listings.At(0.5), listings.At(0.99),
      idle.At(0.5), idle.At(0.99), status.At(0.5), seconds,
      static_cast<double>(report->disk_bytes_before) / (1 << 20),
      static_cast<double>(report->disk_bytes_after) / (1 << 20), busy.At(0.5), busy.At(0.99));
  std::fflush(stdout);
}

// "none" is no size; half of the lines of 20 go, so a size is 40 or more.
std::vector<int> SizesOf(const std::vector<std::string>& words) {
  std::vector<int> sizes;
  if (words == std::vector<std::string>{"none"}) return sizes;
  for (const std::string& word : words) {
    int size = 0;
    if (!absl::SimpleAtoi(word, &size) || size < 40) {
      throw CLI::ValidationError("--states", "'" + word + "' is no number of 40 or more");
    }
    sizes.push_back(size);
  }
  return sizes;
}

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option_function<std::vector<std::string>>(
         "--states",
         [&flags](const std::vector<std::string>& words) { flags.states = SizesOf(words); },
         "sizes of libraries to measure, or none")
      ->delimiter(',')
      ->type_name("N,N,...")
      ->default_str(absl::StrJoin(flags.states, ","));
  app.add_option("--payload", flags.payload, "bytes of a state")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--commits", flags.commits, "of each measurement of commits, by every writer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Commits beside bare synced writes, and libraries of several sizes: tables.");
  AddFlags(app, flags);
  CLI11_PARSE(app, argc, argv);
  std::printf(
      "| bytes | writers | two syncs, p50 / p99 ms | with journal, p50 / p99 ms | bare synced "
      "write, p50 / p99 ms | ratios of p50 | commits a second | bare writes a second |\n"
      "|---|---|---|---|---|---|---|---|\n");
  for (int payload : {200, 65536}) MeasureCommits(flags, payload);
  if (flags.states.empty()) return 0;
  std::printf(
      "\n| states | open ms | memory MiB (by opening) | list 100, p50 / p99 ms | "
      "get, p50 / p99 ms | status ms | half deleted: seconds, disk MiB | "
      "get meanwhile, p50 / p99 ms |\n|---|---|---|---|---|---|---|---|\n");
  for (int states : flags.states) MeasureSize(flags, states);
  return 0;
}

}  // namespace
}  // namespace anabranch

int main(int argc, char** argv) { return anabranch::Main(argc, argv); }
