#include "runtime/capture_queue.h"

#include <algorithm>
#include <utility>

#include "runtime/memory_budget.h"
#include "runtime/slot_segments.h"
#include "statestore/base/host_threads.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// The part of the device's free memory that a ring may take, and how many places are of use.
constexpr uint64_t kMemoryPart = 10;
constexpr int32_t kMostPlaces = 64, kMostPlacesInHostMemory = 8;

// The part of the host's memory that blocks for images may take, and how many it are at least: what
// is on its way here, and some for those who hold images for a while.
constexpr uint64_t kHostMemoryPart = 10, kBuffers = 6;

int32_t PlacesThatFit(SlotPool& pool) {
  Device& device = pool.device();
  const int32_t most = device.in_host_memory() ? kMostPlacesInHostMemory : kMostPlaces;
  const auto memory = device.AvailableMemory();
  const uint64_t each = std::max<uint64_t>(pool.layout().slot_bytes(), 1);
  if (!memory.ok()) return most;
  return static_cast<int32_t>(
      std::clamp<uint64_t>(memory->available / kMemoryPart / each, 2, most));
}

std::vector<int32_t> LayersOf(const StateLayout& layout) {
  std::vector<int32_t> layers;
  for (const StateEntry& entry : layout.entries) {
    if (!entry.paged()) layers.push_back(entry.layer);
  }
  return layers;
}

// In host memory, by codec.
std::array<uint64_t, 3> ImageBytes(SlotPool& ring) {
  std::array<uint64_t, 3> bytes;
  for (size_t codec = 0; codec < bytes.size(); ++codec) {
    bytes[codec] = SegmentsOfCopy(ring, /*vocab=*/0, static_cast<StateCodec>(codec)).block_bytes();
  }
  return bytes;
}

uint64_t BytesForImages(const Device& device, uint64_t most_of_one) {
  const uint64_t least = kBuffers * most_of_one;
  const auto memory = AvailableMemory();
  if (device.in_host_memory() || !memory.ok()) return least;
  return std::max(least, memory->available / kHostMemoryPart);
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
      layers_(LayersOf(pool_->layout())),
      image_bytes_(ImageBytes(*ring_)),
      buffer_bytes_(BytesForImages(pool_->device(),
                                   CaptureBytes(model.state_layout(), model.description().vocab))),
      buffers_(model.device(), buffer_bytes_),
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

int32_t CaptureQueue::PlacesOfAStep(StateCodec codec) const {
  const int32_t half = std::max(1, places_ / 2);
  if (pool_->device().in_host_memory()) return half;
  // The captures of three steps are in host memory at a time: of the one that runs, of one on its
  // way and of one that is made into images.
  const uint64_t fit = buffer_bytes_ / 3 / image_bytes_[static_cast<size_t>(codec)];
  return static_cast<int32_t>(std::clamp<uint64_t>(fit, 1, half));
}

absl::StatusOr<std::vector<PendingCapture>> CaptureQueue::Plan(const Sequence& sequence,
                                                               const std::vector<int64_t>& tokens,
                                                               StateCodec codec) {
  std::vector<PendingCapture> captures;
  for (const int64_t count : tokens) {
    ANABRANCH_ASSIGN_OR_RETURN(SlotRef ref, ring_->AcquireUnset());
    PendingCapture capture;
    capture.way = std::make_shared<PlaceOnItsWay>();
    capture.way->place = CapturePlace(ring_, std::move(ref));
    capture.way->codec = codec;
    capture.pages.position = sequence.ref.position + count;
    capture.inner_sum.resize(sequence.inner_sum.size());
    capture.origin = sequence.origin;
    captures.push_back(std::move(capture));
  }
  return captures;
}

void CaptureQueue::AddTo(StepRows& rows, int64_t position, std::vector<PendingCapture>& captures) {
  for (PendingCapture& capture : captures) {
    PlaceOnItsWay& way = *capture.way;
    way.packed = rows.AddCheckpoint(capture.pages.position - position, way.place.ref().slot,
                                    way.codec == StateCodec::kCompact,
                                    capture.inner_sum.empty() ? nullptr : capture.inner_sum.data());
    begins_.push_back(capture.way);
  }
}

StepProgress* CaptureQueue::Begin() {
  if (begins_.empty()) return nullptr;
  RunningStep step{std::exchange(begins_, {}), std::make_shared<StepProgress>()};
  StepProgress* const progress = step.progress.get();
  absl::MutexLock lock(&mutex_);
  step_ = std::move(step);
  return progress;
}

// From here on nobody begins to follow the step: its captures may be finished, and their places
// given to others, before the last of them is added.
void CaptureQueue::Ran() {
  absl::MutexLock lock(&mutex_);
  if (step_.progress != nullptr) step_.progress->End();
  step_ = RunningStep();
  adding_ = true;
}

void CaptureQueue::EndStep() {
  absl::MutexLock lock(&mutex_);
  adding_ = false;
}

std::vector<float*> CaptureQueue::LogitsOf(const std::vector<PendingCapture>& captures) {
  const int last = static_cast<int>(ring_->layout().entries.size()) - 1;
  std::vector<float*> logits;
  for (const PendingCapture& capture : captures) {
    const absl::Span<uint8_t> bytes = ring_->SlotBytes(capture.way->place.ref(), last);
    logits.push_back(reinterpret_cast<float*>(bytes.data()));
  }
  return logits;
}

absl::Status CaptureQueue::CopyInto(const SlotRef& slot, const PendingCapture& capture) {
  std::vector<CopyPart> parts;
  const std::vector<StateEntry>& entries = pool_->layout().entries;
  for (int e = 0; e < static_cast<int>(entries.size()); ++e) {
    if (entries[e].paged()) continue;
    const absl::Span<uint8_t> from = pool_->SlotBytes(slot, e);
    parts.push_back(
        {from.data(), ring_->SlotBytes(capture.way->place.ref(), e).data(), from.size()});
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
  // Captures of a step are taken together.
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !adding_ && (step_.progress != nullptr || !added_.empty() || stopping_);
  };
  for (;;) {
    RunningStep step;
    std::vector<PendingCapture> captures;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&ready));
      // What is added while a step runs was captured before it.
      if (!added_.empty()) {
        captures = TakeAdded();
      } else if (step_.progress != nullptr) {
        step = step_;
      } else {
        break;
      }
    }
    captures.empty() ? Follow(step) : Finish(std::move(captures));
  }
  absl::MutexLock lock(&mutex_);
  copying_ended_ = true;
}

// Those of a step that was followed, which are nearly there; of others the first alone, since each
// takes its block now.
std::vector<PendingCapture> CaptureQueue::TakeAdded() {
  std::vector<PendingCapture> captures;
  do {
    captures.push_back(std::move(added_.front()));
    added_.pop_front();
  } while (!added_.empty() && captures.back().way->copy != nullptr &&
           added_.front().way->copy != nullptr);
  return captures;
}

// Copies what the layers of the step leave, until it is over. It may fail, or some of its captures
// may be given up: then this was in vain.
void CaptureQueue::Follow(const RunningStep& step) {
  for (const auto& way : step.ways) BeginWay(*way, way->codec);
  for (size_t at = 0; at < layers_.size();) {  // the logits come when it is over
    const auto passed = step.progress->Await(layers_[at]);
    if (!passed.ok() || *passed == StepProgress::kAllLayers) break;
    at = std::upper_bound(layers_.begin() + at, layers_.end(), *passed) - layers_.begin();
    Copy(step.ways, at);
    Hand({step.ways, at, {}});
  }
  const auto over = [this, &step]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return step_.progress != step.progress;
  };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&over));
}

void CaptureQueue::BeginWay(PlaceOnItsWay& way, StateCodec codec) {
  auto copy = BeginCopy(*ring_, /*vocab=*/0, codec, way.packed, &buffers_);
  way.status = copy.status();
  if (copy.ok()) way.copy = std::make_unique<SlotCopy>(*std::move(copy));
}

std::vector<SlotToCopy> CaptureQueue::SlotsOf(const Ways& ways) {
  std::vector<SlotToCopy> slots;
  for (const auto& way : ways) slots.push_back({&way->place.ref(), way->copy.get(), way->status});
  return slots;
}

void CaptureQueue::Copy(const Ways& ways, size_t last) {
  std::vector<SlotToCopy> slots = SlotsOf(ways);
  CopyEntries(*ring_, absl::MakeSpan(slots), last);
  for (size_t i = 0; i < ways.size(); ++i) ways[i]->status = slots[i].status;
}

// What is left of the way of captures whose steps are over.
void CaptureQueue::Finish(std::vector<PendingCapture> captures) {
  Ways ways;
  for (PendingCapture& capture : captures) {
    PlaceOnItsWay& way = *capture.way;
    if (capture.placed.ok() && way.copy == nullptr) BeginWay(way, way.codec);
    if (!capture.placed.ok()) way.status = capture.placed;
    if (way.status.ok()) ways.push_back(capture.way);
  }
  const size_t entries = layers_.size() + 1;
  for (size_t at = ways.empty() ? entries : ways[0]->copy->copied; at < entries;) {
    at = EndOfPiece(SlotsOf(ways), at);
    Copy(ways, at);
    if (at < entries) Hand({ways, at, {}});
  }
  for (PendingCapture& capture : captures) {
    const bool lossy = capture.way->codec != StateCodec::kExact && !capture.way->packed;
    if (lossy && absl::IsOutOfRange(capture.way->status)) CopyExactly(capture);
    capture.way->place.Free();
  }
  Hand({{}, entries, std::move(captures)});
}

// The codec cannot hold a value: the host encodes the state, which knows what to do. Units of the
// first attempt may still be with the maker.
void CaptureQueue::CopyExactly(PendingCapture& capture) {
  auto way = std::make_shared<PlaceOnItsWay>();
  way->place = std::move(capture.way->place);
  way->codec = capture.way->codec;
  BeginWay(*way, StateCodec::kExact);
  if (way->status.ok()) Copy({way}, layers_.size() + 1);
  capture.way = std::move(way);
}

void CaptureQueue::Hand(Unit unit) {
  absl::MutexLock lock(&mutex_);
  if (!unit.whole.empty()) ++changes_;
  const auto room = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return units_.size() < kUnitsAhead;
  };
  mutex_.Await(absl::Condition(&room));
  units_.push_back(std::move(unit));
}

void CaptureQueue::MakeImages() {
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return copying_ended_ || !units_.empty();
  };
  for (;;) {
    Unit unit;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&ready));
      if (units_.empty()) return;
      unit = std::move(units_.front());
      units_.pop_front();
    }
    for (const PendingCapture& capture : unit.whole) unit.ways.push_back(capture.way);
    SealAll(unit.ways, unit.arrived);
    unit.ways.clear();
    for (PendingCapture& capture : unit.whole) Report(std::move(capture));
  }
}

// Also of a way whose copy has failed meanwhile, which is the copier's to know: then what is sealed
// is of no use, and nobody uses it.
void CaptureQueue::SealAll(const Ways& ways, size_t arrived) {
  ForEachOnHost(ways.size() * image_bytes_[0], ways.size(), [&](size_t i) {
    if (ways[i]->copy != nullptr) ways[i]->sealed.Update(Seal(*ways[i]->copy, arrived));
  });
}

void CaptureQueue::Report(PendingCapture capture) {
  capture.done(ImageOf(capture));
  capture = PendingCapture();  // what `done` holds goes before anyone is told
  absl::MutexLock lock(&mutex_);
  ++changes_;
  --unreported_;
}

absl::StatusOr<StateImage> CaptureQueue::ImageOf(PendingCapture& capture) const {
  PlaceOnItsWay& way = *capture.way;
  ANABRANCH_RETURN_IF_ERROR(way.status);
  ANABRANCH_RETURN_IF_ERROR(way.sealed);
  ImageParts parts;
  parts.pool = pool_.get();
  parts.ref = &capture.pages;
  parts.fingerprint = fingerprint_;
  parts.numerics_profile = numerics_profile_;
  parts.codec = way.codec;
  ANABRANCH_ASSIGN_OR_RETURN(StateImage image, MakeImage(std::move(*way.copy), parts));
  image.header.inner_sum = std::move(capture.inner_sum);
  image.header.origin = capture.origin;
  return image;
}

}  // namespace anabranch
