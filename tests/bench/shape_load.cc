// Long reads: with states captured on a grid, and beside streams that decode. Streams with
// captures.
#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "runtime/state_codec.h"
#include "statestore/base/status_macros.h"
#include "tests/bench/bench.h"
#include "tests/bench/engine_runs.h"
#include "tests/bench/shape_bench.h"

namespace anabranch::bench {
namespace {

struct GridRead {
  double ms = 0;
  int captures = 0;
  int64_t bytes = 0;  // of the last one's payload
};

// A read of `tokens` into a new sequence. The images are dropped as they come.
absl::StatusOr<GridRead> ReadOnGrid(Engine& engine, const std::vector<int32_t>& tokens,
                                    int64_t every, StateCodec codec) {
  ANABRANCH_ASSIGN_OR_RETURN(SequencePtr sequence, engine.NewSequence());
  GridRead result;
  absl::Status status, captured;
  absl::Notification done;
  ReadWork work;
  work.sequence = sequence;
  work.tokens = tokens;
  work.checkpoint_every = every;
  work.checkpoint_codec = codec;
  work.on_checkpoint = [&](int64_t, absl::StatusOr<StateImage> image) {
    captured.Update(image.status());
    ++result.captures;
    if (image.ok()) result.bytes = static_cast<int64_t>(image->payload.size());
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

namespace {

constexpr char kCheckpoints[] = "checkpoints";
constexpr int kStreams = 64;

// Medians of reads with captures every so many tokens, beside the read without (`plain`, which is
// measured where it is 0).
absl::Status BenchGrids(ShapeRun& run, Engine& engine, const std::vector<int32_t>& tokens,
                        const std::string& codec_name, double& plain) {
  ANABRANCH_ASSIGN_OR_RETURN(const StateCodec codec, ParseStateCodec(codec_name));
  const auto length = static_cast<int64_t>(tokens.size());
  for (const int64_t every : {0, 16384, 2048, 1024, 512, 256}) {
    if (every >= length || (every == 0 && plain > 0)) continue;
    std::vector<double> samples;
    GridRead read;
    for (int i = 0; i < (run.options.quick ? 3 : 5); ++i) {
      ANABRANCH_ASSIGN_OR_RETURN(read, ReadOnGrid(engine, tokens, every, codec));
      samples.push_back(read.ms);
    }
    const std::string grid =
        every == 0 ? "no captures" : absl::StrCat(codec_name, " every ", Grouped(every));
    Figure figure = FigureOf(kCheckpoints, absl::StrCat("read ", Grouped(length), ", ", grid),
                             std::move(samples));
    if (every == 0) plain = figure.median;
    figure.floor = every == 0 ? 0 : plain;
    if (every > 0) {
      figure.note = absl::StrFormat(
          "floor: the read without; %+.1f %%; %d captures of %s bytes; link alone: %.0f ms",
          100 * (figure.median / plain - 1), read.captures, Grouped(read.bytes),
          1e3 * read.captures * static_cast<double>(read.bytes) / run.ceilings.to_host);
    }
    run.report.Add(std::move(figure));
  }
  return absl::OkStatus();
}

absl::Status BenchReadsOnGrid(ShapeRun& run) {
  if (run.options.lengths.empty()) return absl::OkStatus();
  const int64_t length = *std::max_element(run.options.lengths.begin(), run.options.lengths.end());
  ANABRANCH_ASSIGN_OR_RETURN(auto engine, Engine::Create(run.model, OptionsForReadsOf(length)));
  const auto tokens = SomeTokens(length, run.model->description().vocab);
  double plain = 0;
  for (const std::string& name : run.options.codecs) {
    ANABRANCH_ASSIGN_OR_RETURN(const StateCodec codec, ParseStateCodec(name));
    ANABRANCH_RETURN_IF_ERROR(ReadOnGrid(*engine, tokens, length / 16, codec).status());  // warm-up
    ANABRANCH_RETURN_IF_ERROR(BenchGrids(run, *engine, tokens, name, plain));
  }
  return absl::OkStatus();
}

// Streams that stand at positions of their own, so that captures come one by one.
absl::Status BenchStreamsOnGrid(ShapeRun& run) {
  constexpr int64_t kEvery = 256;
  const int64_t vocab = run.model->description().vocab;
  EngineOptions options;
  options.slots.num_slots = kStreams + 1;
  options.slots.num_kv_pages = 16 * (kStreams + 1);
  options.max_decode_rows = kStreams;
  ANABRANCH_ASSIGN_OR_RETURN(auto engine, Engine::Create(run.model, options));
  ANABRANCH_ASSIGN_OR_RETURN(SequencePtr prompt, engine->NewSequence());
  ANABRANCH_RETURN_IF_ERROR(ReadAll(*engine, prompt, SomeTokens(kEvery, vocab)));
  std::vector<SequencePtr> streams;
  for (int i = 0; i < kStreams; ++i) {
    ANABRANCH_ASSIGN_OR_RETURN(SequencePtr stream, engine->Fork(prompt));
    ANABRANCH_RETURN_IF_ERROR(
        ReadAll(*engine, stream, SomeTokens(1 + i * kEvery / kStreams, vocab)));
    streams.push_back(std::move(stream));
  }
  ANABRANCH_RETURN_IF_ERROR(GenerateAll(*engine, streams, 64, 32));  // warm-up
  double plain = 0;
  const auto measure = [&](int64_t every, const std::string& codec_name) -> absl::Status {
    ANABRANCH_ASSIGN_OR_RETURN(const StateCodec codec, ParseStateCodec(codec_name));
    std::vector<double> samples;
    for (int i = 0; i < (run.options.quick ? 2 : 3); ++i) {
      absl::Status status;
      samples.push_back(1e3 / kEvery * TimeOnce([&] {
                          status = GenerateAll(*engine, streams, kEvery, every, codec);
                        }));
      ANABRANCH_RETURN_IF_ERROR(status);
    }
    Figure figure = FigureOf(
        kCheckpoints,
        absl::StrCat("step of ", kStreams, " streams, ",
                     every == 0 ? "no captures" : absl::StrCat(codec_name, " every ", every)),
        std::move(samples));
    if (every == 0) plain = figure.median;
    figure.floor = every == 0 ? 0 : plain;
    figure.note =
        every == 0 ? absl::StrCat("mean of ", kEvery, " steps")
                   : absl::StrFormat("floor: without; %+.1f %%", 100 * (figure.median / plain - 1));
    run.report.Add(std::move(figure));
    return absl::OkStatus();
  };
  ANABRANCH_RETURN_IF_ERROR(measure(0, "exact"));
  for (const std::string& codec : run.options.codecs) {
    ANABRANCH_RETURN_IF_ERROR(measure(kEvery, codec));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status BenchCheckpoints(ShapeRun& run) {
  ANABRANCH_RETURN_IF_ERROR(BenchReadsOnGrid(run));
  return BenchStreamsOnGrid(run);
}

namespace {

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
