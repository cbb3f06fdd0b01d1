// A small deterministic model for tests of the engine: two recurrent layers with windows and T
// around one attention layer. Every logit depends on every element of the state and on every cached
// key and value, so a state that is copied, shared or restored wrongly shows in the next logits.
// It checks each batch it is given, and can be told to wait, to fail or to go wrong. It may draw
// its tokens itself, as a model on a device does.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "kernels/packed_state.h"
#include "runtime/model.h"
#include "runtime/sampler.h"
#include "runtime/step_progress.h"
#include "runtime/tensor_codec.h"
#include "tests/runtime/test_layouts.h"

namespace anabranch::testing {

class FakeModel : public Model {
 public:
  static constexpr int32_t kVocab = 40;
  static constexpr int32_t kPoison = 39;  // reading this token gives logits that are NaN

  // What one sequence had in one step.
  struct Part {
    int32_t slot = 0, rows = 0;
    int64_t position = 0;
  };

  explicit FakeModel(StateLayout layout = HybridLayout(), std::string fingerprint = "fake-model-1")
      : layout_(std::move(layout)), fingerprint_(std::move(fingerprint)) {
    description_.model_type = "fake";
    description_.vocab = kVocab;
  }

  const ModelDescription& description() const override { return description_; }
  const StateLayout& state_layout() const override { return layout_; }
  const std::string& fingerprint() const override { return fingerprint_; }
  const std::string& numerics_profile() const override { return profile_; }
  size_t weight_bytes() const override { return 0; }
  const std::shared_ptr<Device>& device() const override { return device_; }

  absl::Status Forward(const StepBatch& batch, const StateArrays& state,
                       absl::Span<float> logits) override {
    std::vector<Part> parts;
    const absl::Status valid = Check(batch, logits.size(), parts);
    if (!valid.ok()) return valid;
    std::function<absl::Status(const std::vector<Part>&)> hook;
    {
      absl::MutexLock lock(&mutex_);
      steps_.push_back(parts);
      hook = hook_;
    }
    size_t next_logits = 0, next_kept = 0;
    for (size_t s = 0; s < parts.size(); ++s) {
      for (int32_t r = 0; r < parts[s].rows; ++r) {
        const int32_t row = batch.row_start[s] + r;
        std::vector<float> out = ReadToken(batch, state, s, row, parts[s].position + r);
        if (next_logits < batch.logit_rows.size() && batch.logit_rows[next_logits] == row) {
          std::copy(out.begin(), out.end(), logits.begin() + next_logits * kVocab);
          ++next_logits;
        }
        if (next_kept < batch.checkpoint_rows.size() && batch.checkpoint_rows[next_kept] == row) {
          Keep(batch, state, parts[s].slot, next_kept++);
        }
      }
    }
    if (batch.progress != nullptr) {
      const absl::Status told = batch.progress->Passed(*device_, 0);
      if (!told.ok()) return told;
    }
    return hook ? hook(parts) : absl::OkStatus();
  }

  // Before an engine is made. A rule with this top_k is left to the host.
  static constexpr int32_t kLeftToHost = 7;
  void set_draws(bool draws) { draws_ = draws; }
  bool draws_tokens() const override { return draws_; }
  absl::Status ForwardAndDraw(const StepBatch& batch, const StateArrays& state, int32_t valid_vocab,
                              absl::Span<DrawnToken> drawn) override {
    if (batch.rules.size() != batch.logit_rows.size() || drawn.size() != batch.rules.size()) {
      return absl::InternalError("the fake model was given rules for other rows");
    }
    kept_.assign(drawn.size() * kVocab, 0);
    const absl::Status status = Forward(batch, state, absl::MakeSpan(kept_));
    for (size_t row = 0; row < drawn.size(); ++row) {
      drawn[row] = DrawRow(absl::MakeSpan(kept_).subspan(row * kVocab, kVocab), valid_vocab,
                           batch.rules[row]);
    }
    return status;
  }
  absl::Status ReadLogits(int64_t first, absl::Span<float> logits) override {
    if (first * kVocab + logits.size() > kept_.size()) {
      return absl::InternalError("the fake model was asked for logits that it does not have");
    }
    rows_read_ += static_cast<int64_t>(logits.size()) / kVocab;
    std::copy_n(kept_.begin() + first * kVocab, logits.size(), logits.begin());
    return absl::OkStatus();
  }
  absl::Status CopyLogits(int64_t first, absl::Span<float* const> to) override {
    for (float* const row : to) std::copy_n(kept_.begin() + first++ * kVocab, kVocab, row);
    return absl::OkStatus();
  }
  absl::StatusOr<DrawnToken> Draw(absl::Span<const float> logits, int32_t valid_vocab,
                                  const kernels::RowSampling& rule) override {
    return DrawRow(logits, valid_vocab, rule);
  }
  // States that were packed.
  int packed() const { return packed_; }
  // What is packed has a value that the codec cannot hold.
  void set_refuses(bool refuses) { refuses_ = refuses; }
  // Rows of logits that were asked for.
  int64_t rows_read() const { return rows_read_; }

  // Before an engine is made of it.
  void set_device(std::shared_ptr<Device> device) { device_ = std::move(device); }
  // Called in each step, with the state already written, and when the step has told that the first
  // layer has passed; its status is the step's.
  void set_hook(std::function<absl::Status(const std::vector<Part>&)> hook) {
    absl::MutexLock lock(&mutex_);
    hook_ = std::move(hook);
  }
  std::vector<std::vector<Part>> steps() const {
    absl::MutexLock lock(&mutex_);
    return steps_;
  }

 private:
  static DrawnToken DrawRow(absl::Span<const float> logits, int32_t valid_vocab,
                            const kernels::RowSampling& rule) {
    DrawnToken drawn;
    drawn.token = rule.top_k == kLeftToHost ? -1 : DrawByRule(logits, valid_vocab, rule);
    drawn.logprob = TokenLogprobOf(logits, drawn.token);
    drawn.finite =
        std::all_of(logits.begin(), logits.end(), [](float v) { return std::isfinite(v); });
    return drawn;
  }

  absl::Status Check(const StepBatch& batch, size_t logits, std::vector<Part>& parts) const {
    const size_t seqs = batch.slots.size();
    const bool kv = layout_.has_kv();
    std::set<int32_t> slots(batch.slots.begin(), batch.slots.end());
    if (seqs == 0 || slots.size() != seqs || batch.row_start.size() != seqs + 1 ||
        batch.positions.size() != seqs || batch.row_start[0] != 0 ||
        batch.row_start[seqs] != static_cast<int32_t>(batch.tokens.size()) ||
        batch.page_start.size() != (kv ? seqs + 1 : 0) ||
        logits != batch.logit_rows.size() * kVocab) {
      return absl::InternalError("the fake model was given a malformed batch");
    }
    for (size_t s = 0; s < seqs; ++s) {
      Part part{batch.slots[s], batch.row_start[s + 1] - batch.row_start[s], batch.positions[s]};
      const int64_t pages = kv ? batch.page_start[s + 1] - batch.page_start[s] : 0;
      if (part.rows < 1 || (kv && pages * kKvPageTokens < part.position + part.rows)) {
        return absl::InternalError(absl::StrCat("no rows or no pages for sequence ", s));
      }
      parts.push_back(part);
    }
    return absl::OkStatus();
  }

  // The state of a slot as it is, into a place of the ring.
  void Keep(const StepBatch& batch, const StateArrays& state, int32_t slot, size_t kept) const {
    const bool packed = !batch.checkpoint_packed.empty() && batch.checkpoint_packed[kept] != 0;
    for (int e = 0; e < static_cast<int>(layout_.entries.size()); ++e) {
      const StateEntry& entry = layout_.entries[e];
      if (entry.paged()) continue;
      char* const to =
          At<char>(*batch.checkpoint_ring, e, 0) + entry.bytes() * batch.checkpoint_places[kept];
      const char* const from = At<char>(state, e, 0) + entry.bytes() * slot;
      if (packed && entry.kind == StateKind::kRecurrent) {
        Pack(entry, from, to);
      } else {
        std::memcpy(to, from, entry.bytes());
      }
    }
  }
  // As kernels/packed_state.h says.
  void Pack(const StateEntry& entry, const char* from, char* to) const {
    if (entry.layer == 0) ++packed_;
    const int64_t heads = entry.shape[0], rows = entry.shape[1], cols = entry.shape[2];
    const kernels::PackedPlaces places(heads, rows, cols);
    std::string bytes;
    CodecError error;
    const absl::Span<const float> values(reinterpret_cast<const float*>(from),
                                         entry.num_elements());
    PackMatrices(values, {rows, cols}, bytes, error);
    std::memcpy(to, bytes.data(), bytes.size());
    for (int64_t head = 0; head < heads; ++head) {
      kernels::PackedMeasure measure;
      if (head == 0) {
        measure.off = static_cast<float>(error.off), measure.norm = static_cast<float>(error.norm);
      }
      measure.refused = refuses_ && head == heads - 1 ? 1 : 0;
      std::memcpy(to + places.measures + head * sizeof(measure), &measure, sizeof(measure));
    }
  }

  // A pseudo-random weight in [-1, 1].
  static float Weight(uint64_t a, uint64_t b) {
    uint64_t x = a * 0x9e3779b97f4a7c15ull + b * 0xc2b2ae3d27d4eb4full + 0x165667b19e3779f9ull;
    x ^= x >> 31;
    x *= 0x7fb5d329728ea185ull;
    x ^= x >> 27;
    return static_cast<float>(static_cast<int64_t>(x >> 40) - (1 << 23)) / (1 << 23);
  }
  template <typename T>
  T* At(const StateArrays& state, int entry, int32_t item) const {
    return static_cast<T*>(state.base[entry]) + state.stride[entry] * item;
  }

  // Window, recurrent tensor and T of one layer; `first` is the entry of its window.
  float Recur(const StateArrays& state, int first, int32_t slot, float x) const {
    float* window = At<float>(state, first, slot);
    float* h = At<float>(state, first + 1, slot);
    double* t = At<double>(state, first + 2, slot);
    float sum = 0;
    for (int c = 0; c < 5; ++c) {
      float* w = window + 3 * c;
      w[0] = w[1];
      w[1] = w[2];
      w[2] = x * Weight(c, first);
      sum += w[0] * 0.3f + w[1] * 0.5f + w[2];
    }
    const float dt = 0.5f + 0.4f * std::sin(sum);
    t[0] += dt;
    t[1] += 2 * dt;
    float y = sum;
    for (int i = 0; i < 24; ++i) {
      h[i] = h[i] * (1 - 0.5f * dt) + dt * sum * Weight(i, 77 + first);
      y += h[i] * Weight(i, 99 + first);
    }
    return std::tanh(y + 0.1f * static_cast<float>(std::sin(t[0] + 0.5 * t[1])));
  }

  // Reads all earlier keys and values in order of position.
  float Attend(const StepBatch& batch, const StateArrays& state, size_t s, int64_t position,
               float x) const {
    if (!layout_.has_kv()) return x;
    const int32_t* pages = batch.pages.data() + batch.page_start[s];
    const auto cell = [&](int entry, int64_t p) {
      return At<float>(state, entry, pages[p / kKvPageTokens]) + 2 * (p % kKvPageTokens);
    };
    float* key = cell(3, position);
    float* value = cell(4, position);
    for (int i = 0; i < 2; ++i) {
      key[i] = x * Weight(i, 5) + 0.01f * static_cast<float>(position % 97);
      value[i] = x * Weight(i, 6);
    }
    float y = 0;
    for (int64_t p = 0; p <= position; ++p) {
      const float score = std::tanh(cell(3, p)[0] * key[0] + cell(3, p)[1] * key[1]);
      y += score * (cell(4, p)[0] - cell(4, p)[1]);
    }
    return std::tanh(x + 0.2f * y);
  }

  std::vector<float> ReadToken(const StepBatch& batch, const StateArrays& state, size_t s,
                               int32_t row, int64_t position) const {
    const int32_t token = batch.tokens[row], slot = batch.slots[s];
    const int last = layout_.has_kv() ? 5 : 3;
    float x = Weight(token, 1);
    x = Recur(state, 0, slot, x);
    x = Attend(batch, state, s, position, x);
    x = Recur(state, last, slot, x);
    std::vector<float> logits(kVocab);
    const float* a = At<float>(state, 1, slot);
    const float* b = At<float>(state, last + 1, slot);
    for (int v = 0; v < kVocab; ++v) {
      logits[v] = 4 * x * Weight(v, 2);
      for (int i = 0; i < 24; ++i)
        logits[v] += a[i] * Weight(v, 200 + i) + b[i] * Weight(v, 300 + i);
    }
    if (token == kPoison) logits[3] = std::numeric_limits<float>::quiet_NaN();
    return logits;
  }

  const StateLayout layout_;
  const std::string fingerprint_, profile_ = "cpu-float32";
  std::shared_ptr<Device> device_ = *Device::Open("cpu", 0);
  ModelDescription description_;
  bool draws_ = false;
  std::atomic<bool> refuses_{false};
  mutable std::atomic<int> packed_{0};
  std::vector<float> kept_;  // logits of the last ForwardAndDraw
  std::atomic<int64_t> rows_read_{0};
  mutable absl::Mutex mutex_;
  std::function<absl::Status(const std::vector<Part>&)> hook_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::vector<Part>> steps_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace anabranch::testing
