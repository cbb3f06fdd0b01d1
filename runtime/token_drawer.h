// Draws tokens on the device from logits that lie there, so that of a step only token ids cross to
// the host. The rules are those of runtime/sampler.h; a draw may differ from the host's where its
// target lies within rounding of the border between two tokens.
//
// Thread rule: the one thread that runs the model.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/sample.h"
#include "runtime/device.h"
#include "runtime/model.h"
#include "runtime/tensor_memory.h"

namespace anabranch {

class TokenDrawer {
 public:
  // `device` has a kernel for it.
  TokenDrawer(std::shared_ptr<Device> device, int64_t vocab)
      : device_(std::move(device)), vocab_(vocab) {}

  // Room for the results of `rows` rows: always the same place for the same number. True if it has
  // moved.
  absl::StatusOr<bool> Reserve(int64_t rows);
  // Queues the draw of `rows` rows of logits [rows, vocab] by rules [rows], all on the device. Part
  // of what a device may record.
  absl::Status Queue(const float* logits, int64_t rows, int32_t valid_vocab,
                     const kernels::RowSampling* rules) const;
  // Queues the way of the results to the host; after Device::Wait() they are there.
  absl::Status QueueResults();
  void Results(absl::Span<DrawnToken> drawn) const;

  // All of it at once for logits [vocab] in host memory.
  absl::StatusOr<DrawnToken> DrawOne(absl::Span<const float> logits, int32_t valid_vocab,
                                     const kernels::RowSampling& rule);

 private:
  const std::shared_ptr<Device> device_;
  const int64_t vocab_;
  int64_t capacity_ = 0;     // rows
  Buffer placed_, results_;  // tokens | logprobs | finite, [capacity] each; on device and host
  Buffer one_placed_, one_;  // a rule and its logits
};

}  // namespace anabranch
