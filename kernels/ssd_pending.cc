#include "kernels/ssd_pending.h"

#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "kernels/resident_state.h"

namespace anabranch::kernels {
namespace {

constexpr int32_t kMost = SsdPending::kMost;

float StepSize(const SsdScanParams& p, int64_t row, int32_t head) {
  const float raw = p.dt[row * p.dt_stride + head] + p.dt_bias[head];
  const float soft = raw > 20 ? raw : std::log1p(std::exp(raw));
  return std::isnan(soft) ? soft : std::min(std::max(soft, p.dt_lo), p.dt_hi);
}

// The tokens of one head that are not in S: those that are pending and the launch's own.
struct Tokens {
  int32_t count = 0;
  const float* x[kMost + 1];  // [head_dim]
  const float* b[kMost + 1];  // [state_dim]
  float dt[kMost + 1];
  float weight[kMost + 1];  // dt and what has decayed since
  float decay = 1;          // of S

  void Add(const float* x_row, const float* b_row, float step) {
    x[count] = x_row, b[count] = b_row, dt[count] = step;
    ++count;
  }
  // From the newest backwards: no difference of large numbers.
  void Weigh(float a) {
    float since = 0;
    for (int32_t k = count - 1; k >= 0; --k) {
      weight[k] = std::exp(since) * dt[k];
      since += dt[k] * a;
    }
    decay = std::exp(since);
  }
};

Tokens PendingOf(const SsdScanParams& p, int32_t seq, int32_t head) {
  const SsdPending& pending = p.pending;
  const int64_t slot = p.rows.slot[seq], group = head / (p.heads / p.groups);
  const float* x = pending.x + slot * pending.x_slot_stride + int64_t{head} * p.head_dim;
  const float* b = pending.b + slot * pending.b_slot_stride + group * p.state_dim;
  const float* dt = pending.dt + slot * pending.dt_slot_stride + head;
  Tokens tokens;
  for (int64_t k = 0; k < pending.before[seq]; ++k) {
    tokens.Add(x + k * p.heads * p.head_dim, b + k * p.groups * p.state_dim, dt[k * p.heads]);
  }
  return tokens;
}

// Behind those that are pending. The heads of a group write the same B.
void Append(const SsdScanParams& p, int32_t seq, int32_t head, const Tokens& tokens) {
  const SsdPending& pending = p.pending;
  const int64_t slot = p.rows.slot[seq], group = head / (p.heads / p.groups);
  const int64_t at = pending.before[seq];
  float* x = pending.x + slot * pending.x_slot_stride + (at * p.heads + head) * p.head_dim;
  std::copy_n(tokens.x[at], p.head_dim, x);
  pending.dt[slot * pending.dt_slot_stride + at * p.heads + head] = tokens.dt[at];
  if (head % (p.heads / p.groups) != 0) return;
  float* b = pending.b + slot * pending.b_slot_stride + (at * p.groups + group) * p.state_dim;
  std::copy_n(tokens.b[at], p.state_dim, b);
}

float Dot(const float* a, const float* b, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

void Output(const SsdScanParams& p, int64_t row, int32_t head, const Tokens& tokens,
            const float* state) {
  const float* c = p.c + row * p.c_stride + int64_t{head / (p.heads / p.groups)} * p.state_dim;
  float* y = p.y + row * p.y_stride + int64_t{head} * p.head_dim;
  float share[kMost + 1];
  for (int32_t k = 0; k < tokens.count; ++k) {
    share[k] = tokens.weight[k] * Dot(tokens.b[k], c, p.state_dim);
  }
  for (int64_t r = 0; r < p.head_dim; ++r) {
    float sum = tokens.decay * Dot(state + r * p.state_dim, c, p.state_dim);
    for (int32_t k = 0; k < tokens.count; ++k) sum += share[k] * tokens.x[k][r];
    y[r] = sum + p.d[head] * tokens.x[tokens.count - 1][r];
  }
}

void FoldInto(const SsdScanParams& p, const Tokens& tokens, float* state) {
  for (int64_t r = 0; r < p.head_dim; ++r) {
    float* s = state + r * p.state_dim;
    for (int64_t n = 0; n < p.state_dim; ++n) s[n] *= tokens.decay;
    for (int32_t k = 0; k < tokens.count; ++k) {
      const float in = tokens.weight[k] * tokens.x[k][r];
      for (int64_t n = 0; n < p.state_dim; ++n) s[n] += in * tokens.b[k][n];
    }
  }
}

}  // namespace

absl::Status CheckPending(const SsdScanParams& p, int32_t rows_each, const char* kernel) {
  const SsdPending& pending = p.pending;
  if (pending.deferring == 0) return absl::OkStatus();
  const bool arrays = pending.before && pending.after && pending.x && pending.b && pending.dt;
  if (!arrays || pending.room < 1 || pending.room > SsdPending::kMost || p.round_to_bf16) {
    return Require(false, kernel, "pending tokens without arrays or room, or with rounded outputs");
  }
  int32_t deferring = 0;
  for (int32_t seq = 0; seq < p.rows.num_seqs; ++seq) {
    const int32_t before = pending.before[seq], after = pending.after[seq];
    if (before < 0) continue;
    ++deferring;
    const bool rows = rows_each == 0 || p.rows.row_start[seq + 1] - p.rows.row_start[seq] == 1;
    const bool counts = before <= pending.room && after <= pending.room &&
                        (after == 0 || after == before + rows_each);
    if (!rows || !counts) return Require(false, kernel, "counts of pending tokens out of range");
  }
  return Require(deferring == pending.deferring, kernel, "another number of sequences defers");
}

void StepDeferred(const SsdScanParams& p, int64_t begin, int64_t end) {
  const int64_t cells = int64_t{p.head_dim} * p.state_dim;
  ResidentState resident(p.state, p.state_scales, cells);
  for (int64_t item = begin; item < end; ++item) {
    const auto seq = static_cast<int32_t>(item / p.heads);
    const auto head = static_cast<int32_t>(item % p.heads);
    if (!p.pending.Defers(seq)) continue;
    const int64_t row = p.rows.row_start[seq], slot = p.rows.slot[seq];
    const int64_t group = head / (p.heads / p.groups);
    Tokens tokens = PendingOf(p, seq, head);
    tokens.Add(p.x + row * p.x_stride + int64_t{head} * p.head_dim,
               p.b + row * p.b_stride + group * p.state_dim, StepSize(p, row, head));
    tokens.Weigh(p.a[head]);
    p.t_sum[slot * p.t_slot_stride + head] += tokens.dt[tokens.count - 1];
    float* state = resident.Open(slot * p.state_slot_stride, head * cells);
    Output(p, row, head, tokens, state);
    if (p.pending.after[seq] > 0) {
      Append(p, seq, head, tokens);
      continue;
    }
    FoldInto(p, tokens, state);
    resident.Close(RoundingKeyAfter(p, seq, 1));
  }
}

absl::Status SsdFold(const SsdScanParams& p, const Launch& launch) {
  if (absl::Status s = CheckPending(p, 0, "SsdFold"); !s.ok()) return s;
  if (!p.a || !p.rows.slot || !HasState(p) || p.groups <= 0 || p.heads % p.groups != 0) {
    return Require(false, "SsdFold", "missing array or bad groups");
  }
  const int64_t cells = int64_t{p.head_dim} * p.state_dim;
  launch.For(static_cast<int64_t>(p.rows.num_seqs) * p.heads, 1, [&](int64_t begin, int64_t end) {
    ResidentState resident(p.state, p.state_scales, cells);
    for (int64_t item = begin; item < end; ++item) {
      const auto seq = static_cast<int32_t>(item / p.heads);
      const auto head = static_cast<int32_t>(item % p.heads);
      if (!p.pending.Defers(seq) || p.pending.before[seq] == 0 || p.pending.after[seq] != 0) {
        continue;
      }
      Tokens tokens = PendingOf(p, seq, head);
      tokens.Weigh(p.a[head]);
      FoldInto(p, tokens, resident.Open(p.rows.slot[seq] * p.state_slot_stride, head * cells));
      resident.Close(RoundingKeyAfter(p, seq, 0));
    }
  });
  return absl::OkStatus();
}

}  // namespace anabranch::kernels
