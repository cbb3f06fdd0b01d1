#include "runtime/capture_queue.h"

#include <algorithm>
#include <utility>

#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// The part of the device's free memory that a ring may take, and how many places are of use.
constexpr uint64_t kMemoryPart = 10;
constexpr int32_t kMostPlaces = 64, kMostPlacesInHostMemory = 8;

// Blocks that are kept: what is on its way here, and some for those who hold images for a while.
constexpr int kBuffers = 6;

int32_t PlacesThatFit(SlotPool& pool) {
  Device& device = pool.device();
  const int32_t most = device.in_host_memory() ? kMostPlacesInHostMemory : kMostPlaces;
  const auto memory = device.AvailableMemory();
  const uint64_t each = std::max<uint64_t>(pool.layout().slot_bytes(), 1);
  if (!memory.ok()) return most;
  return static_cast<int32_t>(
      std::clamp<uint64_t>(memory->available / kMemoryPart / each, 2, most));
}

}  // namespace

CapturePlace& CapturePlace::operator=(CapturePlace&& other) noexcept {
  if (this == &other) return *this;
  Free();
  ring_ = std::move(other.ring_);
  ref_ = std::exchange(other.ref_, SlotRef());
  return *this;
}

void CapturePlace::Free() {
  if (ring_ != nullptr) ring_->Release(ref_);
  ring_.reset();
}

void AddCheckpoints(std::vector<PendingCapture>& captures, int64_t position, StepRows& rows) {
  for (PendingCapture& capture : captures) {
    capture.packed =
        rows.AddCheckpoint(capture.pages.position - position, capture.place.ref().slot,
                           capture.codec == StateCodec::kCompact,
                           capture.inner_sum.empty() ? nullptr : capture.inner_sum.data());
  }
}

absl::StatusOr<std::unique_ptr<CaptureQueue>> CaptureQueue::Create(std::shared_ptr<SlotPool> pool,
                                                                   const Model& model,
                                                                   int32_t places) {
  if (places < 0) return absl::InvalidArgumentError("the number of places is negative");
  // Pages come with the layout and are not used: keys and values stay where they are.
  SlotPool::Options options;
  options.num_kv_pages = 1;
  options.num_slots = places > 0 ? places : PlacesThatFit(*pool);
  std::shared_ptr<Device> device(pool, &pool->device());
  StateLayout layout = pool->layout();
  layout.entries.push_back(LastLogitsEntry(model.description().vocab));
  layout.pending.clear();  // what is captured has been folded
  for (;; options.num_slots /= 2) {
    auto ring = SlotPool::Create(layout, options, device);
    if (ring.ok()) {
      return std::unique_ptr<CaptureQueue>(
          new CaptureQueue(std::move(pool), *std::move(ring), model, options.num_slots));
    }
    const bool fewer = places == 0 && options.num_slots > 1;
    if (!fewer || !absl::IsResourceExhausted(ring.status())) return ring.status();
  }
}

CaptureQueue::CaptureQueue(std::shared_ptr<SlotPool> pool, std::shared_ptr<SlotPool> ring,
                           const Model& model, int32_t places)
    : pool_(std::move(pool)),
      ring_(std::move(ring)),
      ring_arrays_(ring_->arrays()),
      fingerprint_(model.fingerprint()),
      numerics_profile_(model.numerics_profile()),
      places_(places),
      buffers_(model.device(), CaptureBytes(model.state_layout(), model.description().vocab),
               kBuffers),
      copier_([this] { CopyPlaces(); }),
      maker_([this] { MakeImages(); }) {
  ring_arrays_.base.pop_back();
  ring_arrays_.stride.pop_back();
}

CaptureQueue::~CaptureQueue() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  copier_.join();
  maker_.join();
}

absl::StatusOr<std::vector<PendingCapture>> CaptureQueue::Plan(const Sequence& sequence,
                                                               const std::vector<int64_t>& tokens,
                                                               StateCodec codec) {
  std::vector<PendingCapture> captures;
  for (const int64_t count : tokens) {
    ANABRANCH_ASSIGN_OR_RETURN(SlotRef ref, ring_->AcquireUnset());
    PendingCapture capture;
    capture.place = CapturePlace(ring_, std::move(ref));
    capture.codec = codec;
    capture.pages.position = sequence.ref.position + count;
    capture.inner_sum.resize(sequence.inner_sum.size());
    capture.origin = sequence.origin;
    captures.push_back(std::move(capture));
  }
  return captures;
}

float* CaptureQueue::LogitsOf(const CapturePlace& place) {
  const int last = static_cast<int>(ring_->layout().entries.size()) - 1;
  return reinterpret_cast<float*>(ring_->SlotBytes(place.ref(), last).data());
}

absl::Status CaptureQueue::CopyInto(const SlotRef& slot, const CapturePlace& place) {
  std::vector<CopyPart> parts;
  const std::vector<StateEntry>& entries = pool_->layout().entries;
  for (int e = 0; e < static_cast<int>(entries.size()); ++e) {
    if (entries[e].paged()) continue;
    const absl::Span<uint8_t> from = pool_->SlotBytes(slot, e);
    parts.push_back({from.data(), ring_->SlotBytes(place.ref(), e).data(), from.size()});
  }
  return parts.empty() ? absl::OkStatus() : pool_->device().Copy(CopyDirection::kWithin, parts);
}

void CaptureQueue::Add(PendingCapture capture) {
  absl::MutexLock lock(&mutex_);
  ++unreported_;
  added_.push_back(std::move(capture));
}

uint64_t CaptureQueue::changes() const {
  absl::MutexLock lock(&mutex_);
  return changes_;
}

void CaptureQueue::WaitForChange(uint64_t seen, absl::Duration most) const {
  absl::MutexLock lock(&mutex_);
  const auto changed = [this, seen]()
                           ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return changes_ != seen; };
  mutex_.AwaitWithTimeout(absl::Condition(&changed), most);
}

void CaptureQueue::Drain() const {
  absl::MutexLock lock(&mutex_);
  const auto reported = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return unreported_ == 0; };
  mutex_.Await(absl::Condition(&reported));
}

void CaptureQueue::CopyPlaces() {
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return added_.empty() ? stopping_ : copied_.size() < kImagesAhead;
  };
  for (;;) {
    PendingCapture capture;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&ready));
      if (added_.empty()) break;
      capture = std::move(added_.front());
      added_.pop_front();
    }
    auto slot = capture.placed.ok() ? CopySlotToHost(*ring_, capture.place.ref(), /*vocab=*/0,
                                                     capture.codec, capture.packed, &buffers_)
                                    : absl::StatusOr<CopiedSlot>(capture.placed);
    capture.place.Free();
    absl::MutexLock lock(&mutex_);
    ++changes_;
    copied_.push_back({std::move(capture), std::move(slot)});
  }
  absl::MutexLock lock(&mutex_);
  copying_ended_ = true;
}

void CaptureQueue::MakeImages() {
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return copying_ended_ || !copied_.empty();
  };
  for (;;) {
    std::deque<Copied> next;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&ready));
      if (copied_.empty()) return;
      next.push_back(std::move(copied_.front()));
      copied_.pop_front();
    }
    Copied& copied = next.front();
    copied.capture.done(ImageOf(copied));
    next.clear();  // what `done` holds goes before anyone is told
    absl::MutexLock lock(&mutex_);
    ++changes_;
    --unreported_;
  }
}

absl::StatusOr<StateImage> CaptureQueue::ImageOf(Copied& copied) const {
  ANABRANCH_RETURN_IF_ERROR(copied.slot.status());
  PendingCapture& capture = copied.capture;
  ImageParts parts;
  parts.pool = pool_.get();
  parts.ref = &capture.pages;
  parts.fingerprint = fingerprint_;
  parts.numerics_profile = numerics_profile_;
  parts.codec = capture.codec;
  ANABRANCH_ASSIGN_OR_RETURN(StateImage image, MakeImage(*std::move(copied.slot), parts));
  image.header.inner_sum = std::move(capture.inner_sum);
  image.header.origin = capture.origin;
  return image;
}

}  // namespace anabranch
