// Captures of running sequences, made into images beside the steps. A sequence that goes on
// overwrites its slot, so its state at a checkpoint is first put into a place of a ring: by the
// kernels inside a launch (kernels/checkpoints.h) or by a copy within the device. One thread copies
// places to host memory, which frees them, in the image's codec where the device codes states; what
// the layers of a step leave is copied while later layers run. Another makes images (checksums,
// keys and values) and reports them. Both take captures in the order in which they came.
//
// The ring is what bounds captures on their way: who finds no free place waits. Images wait in host
// memory for at most kUnitsAhead others.
//
// Thread rule: all from Plan to EndStep belong to one thread; `done` is called on
// another and must not block.
#pragma once

#include <array>
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
#include "runtime/slot_copy.h"
#include "runtime/slot_pool.h"
#include "runtime/state_capture.h"
#include "runtime/state_image.h"
#include "runtime/state_origin.h"
#include "runtime/step_progress.h"
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

// The way of a place to host memory. Of the queue's threads, but for the first three, which are
// known before it sets out.
struct PlaceOnItsWay {
  CapturePlace place;  // holds the tensors and the last logits
  StateCodec codec = StateCodec::kExact;
  bool packed = false;  // the place's recurrent tensors are (kernels/packed_state.h)
  absl::Status status;  // of the copy
  std::unique_ptr<SlotCopy> copy;
  absl::Status sealed;  // of the copy's checksums and final bytes
};

struct PendingCapture {
  std::shared_ptr<PlaceOnItsWay> way;
  absl::Status placed;  // whether the place has the state
  // The sequence's pages and the position to capture; no slot. Its owner keeps the pages.
  SlotRef pages;
  std::vector<float> inner_sum;
  StateOrigin origin;
  std::function<void(absl::StatusOr<StateImage>)> done;  // called once
};

class CaptureQueue {
 public:
  // Of a model whose states `pool` holds. `places` 0: as many as a part of the device's free memory
  // holds. At least one: RESOURCE_EXHAUSTED otherwise.
  static absl::StatusOr<std::unique_ptr<CaptureQueue>> Create(std::shared_ptr<SlotPool> pool,
                                                              const Model& model, int32_t places);
  // Reports what was added first.
  ~CaptureQueue();

  // How many one work may take for a step: half, so that the others can be on their way meanwhile,
  // and not more than there is memory for at full speed.
  int32_t PlacesOfAStep(StateCodec codec) const;
  // Arrays of the ring: entries as in a slot, places as slots.
  const StateArrays& ring() const { return ring_arrays_; }

  // For what stands `tokens` further than the sequence does, each: a place, and what is known by
  // now. RESOURCE_EXHAUSTED if there are not as many places.
  absl::StatusOr<std::vector<PendingCapture>> Plan(const Sequence& sequence,
                                                   const std::vector<int64_t>& tokens,
                                                   StateCodec codec);
  // Has captures of the sequence that was added last, which stands at `position`, made by the
  // kernels of the step.
  void AddTo(StepRows& rows, int64_t position, std::vector<PendingCapture>& captures);
  // The step that makes what was added is about to run: what its layers leave is copied as it goes.
  // To be told of that; null if nothing was added. Ran follows when it is over, well or not, then
  // Add for what was captured, and EndStep.
  StepProgress* Begin();
  void Ran();
  // Where the last logits belong, each [vocabulary] on the device.
  std::vector<float*> LogitsOf(const std::vector<PendingCapture>& captures);
  // The state of a slot of the pool that no step uses now.
  absl::Status CopyInto(const SlotRef& slot, const PendingCapture& capture);
  void Add(PendingCapture capture);
  // Its captures were added or are given up.
  void EndStep();

  // Counts places that were freed by, and captures that were reported by, the threads.
  uint64_t changes() const;
  // Until changes() is not `seen` any more, but not for longer than `most`.
  void WaitForChange(uint64_t seen, absl::Duration most) const;
  // Blocks for images of the model, also for captures that do not go through the queue; any thread.
  HostBuffers* buffers() const { return &buffers_; }

  // Until all that was added has been reported.
  void Drain() const;

 private:
  static constexpr size_t kUnitsAhead = 4;
  using Ways = std::vector<std::shared_ptr<PlaceOnItsWay>>;
  // What the maker takes at a time: entries that have arrived, of places on their way or of all
  // that is in them, with the captures that are whole then.
  struct Unit {
    Ways ways;
    size_t arrived = 0;
    std::vector<PendingCapture> whole;
  };
  struct RunningStep {
    Ways ways;
    std::shared_ptr<StepProgress> progress;
  };

  CaptureQueue(std::shared_ptr<SlotPool> pool, std::shared_ptr<SlotPool> ring, const Model& model,
               int32_t places);
  // The copier's thread.
  void CopyPlaces();
  std::vector<PendingCapture> TakeAdded() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Follow(const RunningStep& step);
  // `codec`: what it is copied in.
  void BeginWay(PlaceOnItsWay& way, StateCodec codec);
  void Finish(std::vector<PendingCapture> captures);
  std::vector<SlotToCopy> SlotsOf(const Ways& ways);
  void Copy(const Ways& ways, size_t last);
  void CopyExactly(PendingCapture& capture);
  void Hand(Unit unit);
  // The maker's.
  void MakeImages();
  void SealAll(const Ways& ways, size_t arrived);
  void Report(PendingCapture capture);
  absl::StatusOr<StateImage> ImageOf(PendingCapture& capture) const;

  const std::shared_ptr<SlotPool> pool_, ring_;  // a place has the last logits behind its tensors
  StateArrays ring_arrays_;                      // of the tensors
  const std::string fingerprint_, numerics_profile_;
  const int32_t places_;
  const std::vector<int32_t> layers_;  // by entry that is copied, but for the logits, the last
  const std::array<uint64_t, 3> image_bytes_;  // by codec
  const uint64_t buffer_bytes_;
  mutable HostBuffers buffers_;
  Ways begins_;  // of the step that is made up

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t changes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t unreported_ ABSL_GUARDED_BY(mutex_) = 0;
  bool copying_ended_ ABSL_GUARDED_BY(mutex_) = false;
  RunningStep step_ ABSL_GUARDED_BY(mutex_);     // without progress: none runs that has captures
  bool adding_ ABSL_GUARDED_BY(mutex_) = false;  // captures of a step that ran
  std::deque<PendingCapture> added_ ABSL_GUARDED_BY(mutex_);
  std::deque<Unit> units_ ABSL_GUARDED_BY(mutex_);

  std::thread copier_, maker_;  // last: they use everything above
};

}  // namespace anabranch
