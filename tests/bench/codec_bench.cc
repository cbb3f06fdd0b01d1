// What the codecs of states save, cost and change: size, speed of encoding and decoding, and how
// far the model's next 256 tokens are from those after the exact state. "10 times" is a context
// that was saved and restored ten times while its last 250 tokens were read.
//
// Contexts are what the model itself writes (temperature 1), because the state of noise is not the
// state of text. The continuation is the exact state's greedy one, so that each token is compared
// after the same history; agreement 1 means that greedy decoding gives the same 256 tokens.
#include <time.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "runtime/state_codec.h"
#include "statestore/base/status_macros.h"
#include "tests/bench/bench.h"
#include "tests/bench/engine_runs.h"

namespace anabranch::bench {
namespace {

constexpr int64_t kContexts[] = {500, 2000, 5000};
constexpr int kContinuation = 256, kCycles = 10, kTokensBetween = 25;

using Logits = std::vector<float>;

// Of this thread: what others do on the machine matters less.
double CpuSeconds(const std::function<void()>& body) {
  const auto now = [] {
    timespec time = {};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  const double start = now();
  body();
  return now() - start;
}

int32_t Best(const Logits& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

absl::StatusOr<std::vector<int32_t>> Written(Engine& engine, int64_t count) {
  ANABRANCH_ASSIGN_OR_RETURN(SequencePtr sequence, engine.NewSequence());
  ANABRANCH_RETURN_IF_ERROR(ReadAll(engine, sequence, {0}));
  absl::Notification done;
  absl::Status result;
  GenerateWork work;
  work.sequence = sequence;
  work.max_tokens = count - 1;
  work.sampling.temperature = 1;
  work.sampling.seed = 1;
  work.on_done = [&](absl::Status status, const WorkStats&, FinishReason) {
    result = std::move(status);
    done.Notify();
  };
  ANABRANCH_RETURN_IF_ERROR(engine.Submit(std::move(work)));
  done.WaitForNotification();
  ANABRANCH_RETURN_IF_ERROR(result);
  return engine.Tokens(sequence);
}

// The logits before each of the tokens that it reads: its own best ones, or those of `tokens`.
absl::StatusOr<std::vector<Logits>> Continue(Engine& engine, const SequencePtr& sequence,
                                             const std::vector<Logits>* like) {
  std::vector<Logits> all;
  for (int i = 0; i < kContinuation; ++i) {
    const absl::Span<const float> logits = engine.LastLogits(sequence);
    all.emplace_back(logits.begin(), logits.end());
    ANABRANCH_RETURN_IF_ERROR(ReadAll(engine, sequence, {Best(like ? (*like)[i] : all.back())}));
  }
  return all;
}

// KL(exact || other) in nats.
double Divergence(const Logits& exact, const Logits& other) {
  const auto log_sum = [](const Logits& logits) {
    const double top = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (float logit : logits) sum += std::exp(logit - top);
    return top + std::log(sum);
  };
  const double a = log_sum(exact), b = log_sum(other);
  double kl = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const double log_p = exact[i] - a;
    kl += std::exp(log_p) * (log_p - (other[i] - b));
  }
  return kl;
}

struct Drift {
  double kl = 0, agreement = 0;  // means
};

Drift Compare(const std::vector<Logits>& exact, const std::vector<Logits>& other) {
  Drift drift;
  for (size_t i = 0; i < exact.size(); ++i) {
    drift.kl += Divergence(exact[i], other[i]) / static_cast<double>(exact.size());
    drift.agreement += (Best(exact[i]) == Best(other[i])) / static_cast<double>(exact.size());
  }
  return drift;
}

class CodecRun {
 public:
  CodecRun(Engine& engine, std::vector<int32_t> tokens, StateCodec codec)
      : engine_(engine), tokens_(std::move(tokens)), codec_(codec) {}

  // A sequence that has read the context and went through the codec `cycles` times.
  absl::StatusOr<SequencePtr> Through(int cycles) const {
    int64_t position =
        static_cast<int64_t>(tokens_.size()) - int64_t{kTokensBetween} * std::max(cycles - 1, 0);
    ANABRANCH_ASSIGN_OR_RETURN(SequencePtr sequence, engine_.NewSequence());
    ANABRANCH_RETURN_IF_ERROR(ReadAll(engine_, sequence, Part(0, position)));
    for (int cycle = 0; cycle < cycles; ++cycle) {
      if (cycle > 0) {
        ANABRANCH_RETURN_IF_ERROR(
            ReadAll(engine_, sequence, Part(position, position + kTokensBetween)));
        position += kTokensBetween;
      }
      ANABRANCH_ASSIGN_OR_RETURN(StateImage image, engine_.Capture(sequence));
      ANABRANCH_ASSIGN_OR_RETURN(image, EncodeState(layout(), std::move(image), codec_));
      ANABRANCH_ASSIGN_OR_RETURN(image, DecodeState(layout(), std::move(image)));
      ANABRANCH_ASSIGN_OR_RETURN(sequence, engine_.Restore(image, Part(0, position)));
    }
    return sequence;
  }

  absl::StatusOr<std::vector<Logits>> Logits256(int cycles, const std::vector<Logits>* like) const {
    ANABRANCH_ASSIGN_OR_RETURN(const SequencePtr sequence, Through(cycles));
    return Continue(engine_, sequence, like);
  }

  // Bytes of the exact and the encoded state; gigabytes of the exact one a second of
  // one core.
  absl::Status Measure(int repeat, std::vector<Row>* rows, const std::string& name) const {
    ANABRANCH_ASSIGN_OR_RETURN(const SequencePtr sequence, Through(0));
    ANABRANCH_ASSIGN_OR_RETURN(const StateImage exact, engine_.Capture(sequence));
    std::vector<double> encode, decode;
    StateImage stored;
    for (int i = 0; i <= repeat; ++i) {
      StateImage copy = exact;
      absl::StatusOr<StateImage> encoded, decoded;
      encode.push_back(
          CpuSeconds([&] { encoded = EncodeState(layout(), std::move(copy), codec_); }));
      ANABRANCH_RETURN_IF_ERROR(encoded.status());
      stored = *encoded;
      decode.push_back(CpuSeconds([&] { decoded = DecodeState(layout(), *std::move(encoded)); }));
      ANABRANCH_RETURN_IF_ERROR(decoded.status());
    }
    const double bytes = SizeOf(exact);
    rows->push_back({name + ": size", SizeOf(stored), "bytes", "exact", bytes,
                     bytes / SizeOf(stored), codec_ == StateCodec::kNear ? ">= 1.9" : ">= 4"});
    rows->push_back({"  encoding", bytes / Percentile(encode, 0.5) / 1e9, "GB/s", "", 0, 0, ""});
    rows->push_back(
        {"  decoding and checking", bytes / Percentile(decode, 0.5) / 1e9, "GB/s", "", 0, 0, ""});
    rows->push_back({"  largest relative error", LargestError(stored.header), "", "", 0, 0, ""});
    return absl::OkStatus();
  }

 private:
  const StateLayout& layout() const { return engine_.model().state_layout(); }
  std::vector<int32_t> Part(int64_t begin, int64_t end) const {
    return {tokens_.begin() + begin, tokens_.begin() + end};
  }
  static double SizeOf(const StateImage& image) {
    size_t bytes = image.payload.size();
    for (const std::string& block : image.kv_blocks) bytes += block.size();
    return static_cast<double>(bytes);
  }

  Engine& engine_;
  const std::vector<int32_t> tokens_;
  const StateCodec codec_;
};

}  // namespace

absl::StatusOr<std::vector<Row>> RunCodecBench(const Options& options) {
  ANABRANCH_ASSIGN_OR_RETURN(auto engine,
                             LoadEngine(options.model, kernels::DType::kFloat32, options.threads));
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<int32_t> written, Written(*engine, 5000));
  std::vector<Row> rows;
  for (int64_t count : kContexts) {
    const std::vector<int32_t> tokens(written.begin(), written.begin() + count);
    const CodecRun uncoded(*engine, tokens, StateCodec::kExact);
    ANABRANCH_ASSIGN_OR_RETURN(const auto exact, uncoded.Logits256(0, nullptr));
    for (const StateCodec codec : {StateCodec::kNear, StateCodec::kCompact}) {
      const bool near = codec == StateCodec::kNear;
      const CodecRun run(*engine, tokens, codec);
      const std::string name = absl::StrCat(StateCodecName(codec), ", ", count, " tokens");
      ANABRANCH_RETURN_IF_ERROR(run.Measure(options.repeat, &rows, name));
      for (const int cycles : {1, kCycles}) {
        ANABRANCH_ASSIGN_OR_RETURN(const auto other, run.Logits256(cycles, &exact));
        const Drift drift = Compare(exact, other);
        const std::string times = absl::StrCat(", ", cycles, cycles == 1 ? " time" : " times");
        rows.push_back(
            {"  KL per token" + times, drift.kl, "nats", "", 0, 0, near ? "< 1e-5" : "< 1e-3"});
        rows.push_back(
            {"  greedy agreement" + times, drift.agreement, "", "", 0, 0, near ? "1" : "> 0.99"});
      }
    }
  }
  return rows;
}

}  // namespace anabranch::bench
