// Long reads: with states captured on a grid, and beside streams that decode.
#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "statestore/base/status_macros.h"
#include "tests/bench/bench.h"
#include "tests/bench/engine_runs.h"
#include "tests/bench/shape_bench.h"

namespace anabranch::bench {
namespace {

constexpr double kLongestGridSeconds = 20;

struct GridRead {
  double ms = 0;
  int captures = 0;
};

// A read of `tokens` into a new sequence. The images are dropped as they come.
absl::StatusOr<GridRead> ReadOnGrid(Engine& engine, const std::vector<int32_t>& tokens,
                                    int64_t every) {
  ANABRANCH_ASSIGN_OR_RETURN(SequencePtr sequence, engine.NewSequence());
  GridRead result;
  absl::Status status, captured;
  absl::Notification done;
  ReadWork work;
  work.sequence = sequence;
  work.tokens = tokens;
  work.checkpoint_every = every;
  work.on_checkpoint = [&](int64_t, absl::StatusOr<StateImage> image) {
    captured.Update(image.status());
    ++result.captures;
  };
  work.on_done = [&](absl::Status s, const WorkStats&) {
    status = std::move(s);
    done.Notify();
  };
  absl::Status submitted;
  result.ms = 1e3 * TimeOnce([&] {
                submitted = engine.Submit(std::move(work));
                if (submitted.ok()) done.WaitForNotification();
              });
  ANABRANCH_RETURN_IF_ERROR(submitted);
  ANABRANCH_RETURN_IF_ERROR(status);
  ANABRANCH_RETURN_IF_ERROR(captured);
  return result;
}

}  // namespace

absl::Status BenchCheckpoints(ShapeRun& run) {
  constexpr char kPart[] = "checkpoints";
  if (run.options.lengths.empty()) return absl::OkStatus();
  int64_t length = *std::max_element(run.options.lengths.begin(), run.options.lengths.end());
  if (run.options.quick) length = std::min<int64_t>(length, 32768);
  EngineOptions options;
  options.slots.num_slots = 2;
  options.slots.num_kv_pages = static_cast<int32_t>(2 * (length / kKvPageTokens + 1));
  options.max_prefill_rows = static_cast<int32_t>(length);
  options.max_context_tokens = length;
  ANABRANCH_ASSIGN_OR_RETURN(auto engine, Engine::Create(run.model, options));
  const auto tokens = SomeTokens(length, run.model->description().vocab);
  ANABRANCH_RETURN_IF_ERROR(ReadOnGrid(*engine, tokens, 0).status());  // warm-up
  ANABRANCH_ASSIGN_OR_RETURN(const GridRead plain, ReadOnGrid(*engine, tokens, 0));
  run.report.Add(FigureOf(kPart, absl::StrCat("read ", Grouped(length), ", none"), {plain.ms}));
  double ms_each = 0;  // that a capture added, in the grid before
  for (const int64_t every : {16384, 2048, 1024, 512, 256}) {
    if (every >= length) continue;
    const auto captures = static_cast<double>(length / every);
    const std::string name = absl::StrCat("read ", Grouped(length), ", every ", Grouped(every));
    if (plain.ms + captures * ms_each > 1e3 * kLongestGridSeconds) {
      Figure skipped = FigureOf(kPart, name, {});
      skipped.note = absl::StrFormat("left out: would take about %.0f s",
                                     (plain.ms + captures * ms_each) / 1e3);
      run.report.Add(std::move(skipped));
      continue;
    }
    ANABRANCH_ASSIGN_OR_RETURN(const GridRead read, ReadOnGrid(*engine, tokens, every));
    ms_each = std::max(0.0, read.ms - plain.ms) / std::max(1, read.captures);
    Figure figure = FigureOf(kPart, name, {read.ms});
    figure.floor = plain.ms;
    figure.note = absl::StrFormat("floor: the read without; %d captures, %.2f ms each",
                                  read.captures, ms_each);
    run.report.Add(std::move(figure));
  }
  return absl::OkStatus();
}

namespace {

constexpr int kStreams = 64;
constexpr int64_t kReadTokens = 32768;

// Streams that decode until they are told to end, and the times between their tokens.
class Streams {
 public:
  explicit Streams(int count) : left_(count) {}

  absl::Status Start(Engine& engine, SequencePtr sequence) {
    GenerateWork work;
    work.sequence = std::move(sequence);
    work.max_tokens = int64_t{1} << 40;
    work.on_token = [this, last = absl::InfinitePast()](const GeneratedToken&) mutable {
      const absl::Time now = absl::Now();
      if (last != absl::InfinitePast()) {
        absl::MutexLock lock(&mutex_);
        gaps_.push_back(absl::ToDoubleMilliseconds(now - last));
      }
      last = now;
      return !stop_.load();
    };
    work.on_done = [this](absl::Status status, const WorkStats&, FinishReason) {
      {
        absl::MutexLock lock(&mutex_);
        status_.Update(status);
      }
      left_.DecrementCount();
    };
    return engine.Submit(std::move(work));
  }
  std::vector<double> TakeGaps() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(gaps_, {});
  }
  absl::Status End() {
    stop_ = true;
    left_.Wait();
    absl::MutexLock lock(&mutex_);
    return status_;
  }

 private:
  absl::BlockingCounter left_;
  std::atomic<bool> stop_{false};
  absl::Mutex mutex_;
  std::vector<double> gaps_;
  absl::Status status_;
};

// Reads and then samples one token; tells when that token was there.
class Arrival {
 public:
  absl::Status Start(Engine& engine, std::vector<int32_t> tokens) {
    ANABRANCH_ASSIGN_OR_RETURN(sequence_, engine.NewSequence());
    submitted_ = absl::Now();
    ReadWork work;
    work.sequence = sequence_;
    work.tokens = std::move(tokens);
    work.on_done = [this, &engine](absl::Status status, const WorkStats&) {
      if (!status.ok()) return Finish(std::move(status));
      GenerateWork first;
      first.sequence = sequence_;
      first.max_tokens = 1;
      first.on_token = [this](const GeneratedToken&) {
        ms_ = absl::ToDoubleMilliseconds(absl::Now() - submitted_);
        return true;
      };
      first.on_done = [this](absl::Status s, const WorkStats&, FinishReason) {
        Finish(std::move(s));
      };
      absl::Status next = engine.Submit(std::move(first));
      if (!next.ok()) Finish(std::move(next));
    };
    return engine.Submit(std::move(work));
  }
  absl::StatusOr<double> Wait() {
    done_.WaitForNotification();
    ANABRANCH_RETURN_IF_ERROR(status_);
    return ms_;
  }

 private:
  void Finish(absl::Status status) {
    status_ = std::move(status);
    done_.Notify();
  }

  SequencePtr sequence_;
  absl::Time submitted_;
  double ms_ = 0;
  absl::Status status_;
  absl::Notification done_;
};

void AddPercentiles(ShapeRun& run, const std::string& name, const std::vector<double>& samples,
                    double floor, const std::string& note) {
  for (const double p : {0.5, 0.99}) {
    Figure figure = FigureOf("mixed", absl::StrCat(name, ", p", p * 100), samples);
    figure.median = Percentile(samples, p);
    figure.floor = floor;
    figure.note = note;
    run.report.Add(std::move(figure));
  }
}

// Reads arriving one after the other, each a little later than one takes alone.
absl::StatusOr<std::vector<double>> RunArrivals(Engine& engine, int count, absl::Duration interval,
                                                int64_t vocab) {
  std::vector<Arrival> arrivals(count);
  absl::Time next = absl::Now();
  int started = 0;
  absl::Status status;
  for (Arrival& arrival : arrivals) {
    absl::SleepFor(next - absl::Now());
    next += interval;
    status = arrival.Start(engine, SomeTokens(kReadTokens, vocab));
    if (!status.ok()) break;
    ++started;
  }
  std::vector<double> first_token;
  for (int i = 0; i < started; ++i) {  // all of them: they point into `arrivals`
    const auto ms = arrivals[i].Wait();
    status.Update(ms.status());
    if (ms.ok()) first_token.push_back(*ms);
  }
  ANABRANCH_RETURN_IF_ERROR(status);
  return first_token;
}

}  // namespace

absl::Status BenchMixed(ShapeRun& run) {
  const int reads = run.options.quick ? 4 : 12;
  const int64_t vocab = run.model->description().vocab;
  EngineOptions options;
  options.slots.num_slots = kStreams + reads + 2;
  options.slots.num_kv_pages =
      static_cast<int32_t>((reads + 1) * (kReadTokens / kKvPageTokens + 1) + kStreams * 64);
  options.max_prefill_rows = static_cast<int32_t>(kReadTokens);
  options.max_prefill_rows_decoding = run.options.rows_while_decoding;
  options.max_decode_rows = kStreams + reads;
  ANABRANCH_ASSIGN_OR_RETURN(auto engine, Engine::Create(run.model, options));
  double alone = 0;
  for (int i = 0; i < 2; ++i) {  // the first one warms up
    Arrival arrival;
    ANABRANCH_RETURN_IF_ERROR(arrival.Start(*engine, SomeTokens(kReadTokens, vocab)));
    ANABRANCH_ASSIGN_OR_RETURN(alone, arrival.Wait());
  }
  run.report.Add(FigureOf("mixed", "first token of a 32k read, alone", {alone}));

  ANABRANCH_ASSIGN_OR_RETURN(SequencePtr prompt, engine->NewSequence());
  ANABRANCH_RETURN_IF_ERROR(ReadAll(*engine, prompt, SomeTokens(256, vocab)));
  Streams streams(kStreams);
  for (int i = 0; i < kStreams; ++i) {
    ANABRANCH_ASSIGN_OR_RETURN(SequencePtr sequence, engine->Fork(prompt));
    ANABRANCH_RETURN_IF_ERROR(streams.Start(*engine, std::move(sequence)));
  }
  const absl::Duration settle = absl::Milliseconds(run.options.quick ? 500 : 2000);
  absl::SleepFor(settle);
  streams.TakeGaps();
  absl::SleepFor(settle);
  const std::vector<double> before = streams.TakeGaps();
  const auto first_token = RunArrivals(*engine, reads, 1.5 * absl::Milliseconds(alone), vocab);
  const std::vector<double> during = streams.TakeGaps();
  ANABRANCH_RETURN_IF_ERROR(streams.End());
  ANABRANCH_RETURN_IF_ERROR(first_token.status());

  const std::string rows = absl::StrCat(run.options.rows_while_decoding, " reading rows a step");
  const double undisturbed = Percentile(before, 0.5);
  AddPercentiles(run, "between tokens of 64 streams", before, 0, "no reads");
  AddPercentiles(run, "between tokens while 32k reads arrive", during, undisturbed,
                 absl::StrCat("floor: p50 without reads; ", rows));
  AddPercentiles(run, "first token of a 32k read, 64 streams", *first_token, alone,
                 absl::StrCat("floor: without streams; ", reads, " reads; ", rows));
  return absl::OkStatus();
}

}  // namespace anabranch::bench
