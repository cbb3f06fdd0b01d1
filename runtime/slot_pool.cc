#include "runtime/slot_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "runtime/tensor_memory.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// NaN in float32, bfloat16 and float64.
constexpr int kPoisonByte = 0xff;

// Zero pages from the system: nothing is committed before it is written, so a pool of many large
// slots costs what its live sequences need.
class Arena {
 public:
  Arena() = default;
  Arena(Arena&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Arena& operator=(Arena&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Arena() {
    if (data_ != nullptr) munmap(data_, bytes_);
  }

  static absl::StatusOr<Arena> Reserve(size_t bytes) {
    Arena arena;
    if (bytes == 0) return arena;
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) {
      return absl::ResourceExhaustedError(
          absl::StrCat("cannot reserve ", bytes, " bytes for state slots; lower the slot count"));
    }
    arena.data_ = static_cast<uint8_t*>(data);
    arena.bytes_ = bytes;
    return arena;
  }

  uint8_t* data() const { return data_; }

 private:
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

// Bytes of `count` items of the entry, or an error that names it.
absl::StatusOr<size_t> CheckedBytes(const StateEntry& entry, int32_t count) {
  int64_t bytes = StateDTypeBytes(entry.dtype);
  bool valid = bytes > 0 && !entry.shape.empty();
  for (int64_t dim : entry.shape) {
    valid = valid && dim > 0 && !__builtin_mul_overflow(bytes, dim, &bytes);
  }
  if (entry.paged()) valid = valid && entry.shape[0] == kKvPageTokens;
  if (valid) bytes = static_cast<int64_t>(entry.bytes());  // with scales: at most an eighth more
  if (!valid || __builtin_mul_overflow(bytes, int64_t{count}, &bytes)) {
    return absl::InvalidArgumentError(absl::StrCat("state entry of layer ", entry.layer, " kind ",
                                                   static_cast<int>(entry.kind),
                                                   " has no usable shape"));
  }
  return static_cast<size_t>(bytes);
}

// Counts references of `size` items and hands out free ones, lowest first at the start.
class RefCounts {
 public:
  explicit RefCounts(int32_t size) : refs_(size, 0) {
    free_.reserve(size);
    for (int32_t i = size - 1; i >= 0; --i) free_.push_back(i);
  }
  int32_t size() const { return static_cast<int32_t>(refs_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  // References beyond the first of each item.
  int32_t num_further() const { return further_; }
  bool shared(int32_t item) const { return refs_[item] > 1; }
  void Add(int32_t item) {
    ++refs_[item];
    ++further_;
  }
  int32_t Take() {
    const int32_t item = free_.back();
    free_.pop_back();
    refs_[item] = 1;
    return item;
  }
  // True if that was the last reference: the caller wipes the item and then calls Free.
  bool Drop(int32_t item) {
    if (--refs_[item] == 0) return true;
    --further_;
    return false;
  }
  void Free(int32_t item) { free_.push_back(item); }

 private:
  std::vector<int32_t> refs_;
  std::vector<int32_t> free_;
  int32_t further_ = 0;
};

// The entries of a slot or page, then what slots have beside them.
std::vector<StateEntry> PartsOf(const StateLayout& layout) {
  std::vector<StateEntry> parts = layout.entries;
  parts.insert(parts.end(), layout.pending.begin(), layout.pending.end());
  return parts;
}

// All items of one entry: an arena on the CPU, a buffer on other devices.
struct Memory {
  Arena arena;
  Buffer buffer;
  uint8_t* data() const {
    return buffer.size() > 0 ? static_cast<uint8_t*>(buffer.data()) : arena.data();
  }
};

class SlotPoolImpl final : public SlotPool {
 public:
  SlotPoolImpl(const StateLayout& layout, const Options& options, std::shared_ptr<Device> device,
               std::vector<Memory> memory)
      : layout_(layout),
        parts_(PartsOf(layout)),
        poison_(options.poison_released),
        device_(std::move(device)),
        memory_(std::move(memory)),
        slots_(options.num_slots),
        pages_(layout.has_kv() ? options.num_kv_pages : 0) {
    for (size_t e = 0; e < layout_.entries.size(); ++e) {
      arrays_.base.push_back(memory_[e].data());
      arrays_.stride.push_back(layout_.entries[e].stride());
    }
    for (size_t e = layout_.entries.size(); e < parts_.size(); ++e) {
      arrays_.pending_base.push_back(memory_[e].data());
      arrays_.pending_stride.push_back(parts_[e].stride());
    }
  }

  absl::StatusOr<SlotRef> AcquireUnset() override {
    SlotRef ref;
    absl::MutexLock lock(&mutex_);
    if (slots_.num_free() == 0) return OutOf("slots", slots_.size());
    ref.slot = slots_.Take();
    return ref;
  }

  absl::StatusOr<SlotRef> Acquire() override {
    ANABRANCH_ASSIGN_OR_RETURN(SlotRef ref, AcquireUnset());
    const absl::Status zeroed = FillSlot(ref.slot, 0);
    if (zeroed.ok()) return ref;
    Release(ref);
    return zeroed;
  }

  SlotRef Share(const SlotRef& ref) override {
    SlotRef other;
    if (ref.slot < 0) return other;
    // Pages beyond the position hold nothing: they stay with the reference that asked for them.
    const size_t filled = std::min(PagesFor(ref.position), ref.pages.size());
    other.slot = ref.slot;
    other.position = ref.position;
    other.pending = ref.pending;
    other.pages.assign(ref.pages.begin(), ref.pages.begin() + filled);
    absl::MutexLock lock(&mutex_);
    slots_.Add(other.slot);
    for (int32_t page : other.pages) pages_.Add(page);
    return other;
  }

  void Release(SlotRef& ref) override {
    if (ref.slot < 0) return;
    DropSlot(ref.slot);
    for (int32_t page : ref.pages) DropPage(page);
    ref = SlotRef();
  }

  absl::Status PrepareWrite(SlotRef& ref, int64_t new_tokens) override;

  Device& device() override { return *device_; }
  const StateArrays& arrays() const override { return arrays_; }
  const StateLayout& layout() const override { return layout_; }

  Usage usage() const override {
    Usage usage;
    usage.slot_bytes = layout_.slot_bytes() + layout_.pending_bytes();
    usage.page_bytes = layout_.kv_page_bytes();
    absl::MutexLock lock(&mutex_);
    usage.slots_total = slots_.size();
    usage.slots_used = slots_.size() - slots_.num_free();
    usage.slots_owed = slots_.num_further();
    usage.pages_total = pages_.size();
    usage.pages_used = pages_.size() - pages_.num_free();
    return usage;
  }

  absl::Span<uint8_t> SlotBytes(const SlotRef& ref, int entry) override {
    return Bytes(entry, ref.slot);
  }
  absl::Span<uint8_t> PageBytes(const SlotRef& ref, int entry, int page_index) override {
    return Bytes(entry, ref.pages[page_index]);
  }

 private:
  // What PrepareWrite takes before it touches `ref`: a new slot and new pages by page index.
  struct Taken {
    int32_t slot = -1;
    std::vector<std::pair<size_t, int32_t>> pages;
  };

  static size_t PagesFor(int64_t tokens) { return (tokens + kKvPageTokens - 1) / kKvPageTokens; }
  static absl::Status OutOf(const char* what, int32_t total) {
    return absl::ResourceExhaustedError(
        absl::StrCat("all ", total, " state ", what, " are in use"));
  }

  absl::Span<uint8_t> Bytes(int part, int32_t item) const {
    const size_t bytes = parts_[part].bytes();
    return absl::MakeSpan(memory_[part].data() + bytes * item, bytes);
  }

  absl::Status Fill(bool paged, int32_t item, int byte) const {
    std::vector<absl::Span<uint8_t>> blocks;
    for (size_t e = 0; e < parts_.size(); ++e) {
      if (parts_[e].paged() == paged) blocks.push_back(Bytes(e, item));
    }
    return device_->Fill(blocks, byte);
  }
  absl::Status FillSlot(int32_t slot, int byte) const { return Fill(false, slot, byte); }
  absl::Status FillPage(int32_t page, int byte) const { return Fill(true, page, byte); }

  // The first numerator / denominator of each of the first `count` parts.
  absl::Status CopyItem(size_t count, bool paged, int32_t from, int32_t to, int64_t numerator,
                        int64_t denominator) const {
    std::vector<CopyPart> parts;
    for (size_t e = 0; e < count; ++e) {
      if (parts_[e].paged() != paged) continue;
      const absl::Span<uint8_t> bytes = Bytes(e, to);
      parts.push_back(
          {Bytes(e, from).data(), bytes.data(), bytes.size() / denominator * numerator});
    }
    return device_->Copy(CopyDirection::kWithin, parts);
  }
  absl::Status CopySlot(const SlotRef& from, int32_t to) const {
    const size_t count = from.pending > 0 ? parts_.size() : layout_.entries.size();
    return CopyItem(count, false, from.slot, to, 1, 1);
  }
  absl::Status CopyPage(int32_t from, int32_t to, int64_t tokens) const {
    return CopyItem(layout_.entries.size(), true, from, to, tokens, kKvPageTokens);
  }

  void DropSlot(int32_t slot) {
    {
      absl::MutexLock lock(&mutex_);
      if (!slots_.Drop(slot)) return;
    }
    if (poison_) (void)FillSlot(slot, kPoisonByte);
    absl::MutexLock lock(&mutex_);
    slots_.Free(slot);
  }
  void DropPage(int32_t page) {
    {
      absl::MutexLock lock(&mutex_);
      if (!pages_.Drop(page)) return;
    }
    if (poison_) (void)FillPage(page, kPoisonByte);
    absl::MutexLock lock(&mutex_);
    pages_.Free(page);
  }

  absl::StatusOr<Taken> Take(const SlotRef& ref, size_t first_page, size_t num_pages);
  absl::Status Write(const Taken& taken, const SlotRef& ref, size_t first_page) const;

  const StateLayout layout_;
  const std::vector<StateEntry> parts_;
  const bool poison_;
  const std::shared_ptr<Device> device_;
  const std::vector<Memory> memory_;  // by part
  StateArrays arrays_;                // constant after construction

  // Guards the counts only. Payload is written without it: by its only holder, or before the item
  // is handed out.
  mutable absl::Mutex mutex_;
  RefCounts slots_ ABSL_GUARDED_BY(mutex_);
  RefCounts pages_ ABSL_GUARDED_BY(mutex_);
};

// Takes everything a write needs, or nothing.
absl::StatusOr<SlotPoolImpl::Taken> SlotPoolImpl::Take(const SlotRef& ref, size_t first_page,
                                                       size_t num_pages) {
  Taken taken;
  std::vector<size_t> indexes;
  absl::MutexLock lock(&mutex_);
  for (size_t i = first_page; i < std::max(num_pages, ref.pages.size()); ++i) {
    if (i >= ref.pages.size() || pages_.shared(ref.pages[i])) indexes.push_back(i);
  }
  if (static_cast<size_t>(pages_.num_free()) < indexes.size()) return OutOf("pages", pages_.size());
  if (slots_.shared(ref.slot)) {
    if (slots_.num_free() == 0) return OutOf("slots", slots_.size());
    taken.slot = slots_.Take();
  }
  for (size_t i : indexes) taken.pages.emplace_back(i, pages_.Take());
  return taken;
}

absl::Status SlotPoolImpl::PrepareWrite(SlotRef& ref, int64_t new_tokens) {
  if (ref.slot < 0 || new_tokens < 0 ||
      new_tokens > std::numeric_limits<int64_t>::max() - ref.position - kKvPageTokens) {
    return absl::InvalidArgumentError("PrepareWrite needs a held slot and a token count");
  }
  const bool kv = layout_.has_kv();
  const size_t first_page = ref.position / kKvPageTokens;
  const size_t num_pages = kv ? PagesFor(ref.position + new_tokens) : 0;
  ANABRANCH_ASSIGN_OR_RETURN(const Taken taken, Take(ref, first_page, num_pages));
  const absl::Status written = Write(taken, ref, first_page);
  // The old ones are dropped only after the copy: until then nobody else may write them in place.
  // If it fails, `ref` keeps them: nothing may go on from an item that was not fully written.
  if (taken.slot >= 0) {
    DropSlot(written.ok() ? std::exchange(ref.slot, taken.slot) : taken.slot);
  }
  for (const auto& [index, page] : taken.pages) {
    if (!written.ok()) {
      DropPage(page);
    } else if (index >= ref.pages.size()) {
      ref.pages.push_back(page);
    } else {
      DropPage(std::exchange(ref.pages[index], page));
    }
  }
  return written;
}

// Fills what was taken: copies of what is shared, zeros in new pages.
absl::Status SlotPoolImpl::Write(const Taken& taken, const SlotRef& ref, size_t first_page) const {
  if (taken.slot >= 0) ANABRANCH_RETURN_IF_ERROR(CopySlot(ref, taken.slot));
  const int64_t partly = ref.position % kKvPageTokens;
  for (const auto& [index, page] : taken.pages) {
    ANABRANCH_RETURN_IF_ERROR(FillPage(page, 0));
    if (index != first_page || index >= ref.pages.size()) continue;
    ANABRANCH_RETURN_IF_ERROR(CopyPage(ref.pages[index], page, partly));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SlotPool>> SlotPool::Create(const StateLayout& layout,
                                                           const Options& options,
                                                           std::shared_ptr<Device> device) {
  if (options.num_slots < 1) return absl::InvalidArgumentError("num_slots must be at least 1");
  if (layout.has_kv() && options.num_kv_pages < 1) {
    return absl::InvalidArgumentError("num_kv_pages must be at least 1 for a model with attention");
  }
  if (device == nullptr) {
    ANABRANCH_ASSIGN_OR_RETURN(device, Device::Open("cpu", /*num_threads=*/0));
  }
  std::vector<Memory> memory;
  for (const StateEntry& entry : PartsOf(layout)) {
    const int32_t count = entry.paged() ? options.num_kv_pages : options.num_slots;
    ANABRANCH_ASSIGN_OR_RETURN(const size_t bytes, CheckedBytes(entry, count));
    Memory items;
    if (device->in_host_memory()) {
      ANABRANCH_ASSIGN_OR_RETURN(items.arena, Arena::Reserve(bytes));
    } else {
      ANABRANCH_ASSIGN_OR_RETURN(items.buffer, device->Allocate(bytes));
    }
    memory.push_back(std::move(items));
  }
  return std::make_unique<SlotPoolImpl>(layout, options, std::move(device), std::move(memory));
}

}  // namespace anabranch
