// Captures of running sequences, made into images beside the steps. A sequence that goes on
// overwrites its slot, so its state at a checkpoint is first put into a place of a ring: by the
// kernels inside a launch (kernels/checkpoints.h) or by a copy within the device. One thread copies
// places to host memory, which frees them, in the image's codec where the device codes states;
// another makes images (checksums, keys and values) and reports them. Both take captures in the
// order in which they came.
//
// The ring is what bounds captures on their way: who finds no free place waits. Images wait in host
// memory for at most kImagesAhead others.
//
// Thread rule: Plan, CopyInto and Add belong to one thread; `done` is called on another and must
// not block.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "runtime/host_buffers.h"
#include "runtime/model.h"
#include "runtime/sequence.h"
#include "runtime/slot_pool.h"
#include "runtime/state_capture.h"
#include "runtime/state_image.h"
#include "runtime/state_origin.h"
#include "runtime/step_rows.h"

namespace anabranch {

// A place of the ring; free again when this is gone.
class CapturePlace {
 public:
  CapturePlace() = default;
  CapturePlace(std::shared_ptr<SlotPool> ring, SlotRef ref)
      : ring_(std::move(ring)), ref_(std::move(ref)) {}
  ~CapturePlace() { Free(); }
  CapturePlace(CapturePlace&& other) noexcept { *this = std::move(other); }
  CapturePlace& operator=(CapturePlace&& other) noexcept;

  const SlotRef& ref() const { return ref_; }
  void Free();

 private:
  std::shared_ptr<SlotPool> ring_;
  SlotRef ref_;
};

struct PendingCapture {
  CapturePlace place;   // holds the tensors and the last logits,
  absl::Status placed;  // or why it does not
  StateCodec codec = StateCodec::kExact;
  bool packed = false;  // the place's recurrent tensors are (kernels/packed_state.h)
  // The sequence's pages and the position to capture; no slot. Its owner keeps the pages.
  SlotRef pages;
  std::vector<float> inner_sum;
  StateOrigin origin;
  std::function<void(absl::StatusOr<StateImage>)> done;  // called once
};

// Has the captures of the sequence that was added last, which stands at `position`, made by the
// kernels of the step.
void AddCheckpoints(std::vector<PendingCapture>& captures, int64_t position, StepRows& rows);

class CaptureQueue {
 public:
  // Of a model whose states `pool` holds. `places` 0: as many as a part of the device's free memory
  // holds. At least one: RESOURCE_EXHAUSTED otherwise.
  static absl::StatusOr<std::unique_ptr<CaptureQueue>> Create(std::shared_ptr<SlotPool> pool,
                                                              const Model& model, int32_t places);
  // Reports what was added first.
  ~CaptureQueue();

  // How many one work may take for a step: half, so that the others can be on their way meanwhile.
  int32_t places_of_a_step() const { return std::max(1, places_ / 2); }
  // Arrays of the ring: entries as in a slot, places as slots.
  const StateArrays& ring() const { return ring_arrays_; }

  // For what stands `tokens` further than the sequence does, each: a place, and what is known by
  // now. RESOURCE_EXHAUSTED if there are not as many places.
  absl::StatusOr<std::vector<PendingCapture>> Plan(const Sequence& sequence,
                                                   const std::vector<int64_t>& tokens,
                                                   StateCodec codec);
  // Where the last logits of a place belong, on the device: [vocabulary].
  float* LogitsOf(const CapturePlace& place);
  // The state of a slot of the pool that no step uses now.
  absl::Status CopyInto(const SlotRef& slot, const CapturePlace& place);
  void Add(PendingCapture capture);

  // Counts places that were freed by, and captures that were reported by, the threads.
  uint64_t changes() const;
  // Until changes() is not `seen` any more, but not for longer than `most`.
  void WaitForChange(uint64_t seen, absl::Duration most) const;
  // Blocks for images of the model, also for captures that do not go through the queue; any thread.
  HostBuffers* buffers() const { return &buffers_; }

  // Until all that was added has been reported.
  void Drain() const;

 private:
  static constexpr size_t kImagesAhead = 2;
  struct Copied {
    PendingCapture capture;
    absl::StatusOr<CopiedSlot> slot;
  };

  CaptureQueue(std::shared_ptr<SlotPool> pool, std::shared_ptr<SlotPool> ring, const Model& model,
               int32_t places);
  void CopyPlaces();
  void MakeImages();
  absl::StatusOr<StateImage> ImageOf(Copied& copied) const;

  const std::shared_ptr<SlotPool> pool_, ring_;  // a place has the last logits behind its tensors
  StateArrays ring_arrays_;                      // of the tensors
  const std::string fingerprint_, numerics_profile_;
  const int32_t places_;
  mutable HostBuffers buffers_;

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t changes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t unreported_ ABSL_GUARDED_BY(mutex_) = 0;
  bool copying_ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<PendingCapture> added_ ABSL_GUARDED_BY(mutex_);
  std::deque<Copied> copied_ ABSL_GUARDED_BY(mutex_);

  std::thread copier_, maker_;  // last: they use everything above
};

}  // namespace anabranch
