#include "runtime/slot_pool.h"

#include <cmath>
#include <cstring>
#include <random>
#include <set>
#include <thread>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/test_layouts.h"

namespace anabranch {
namespace {

using testing::HybridLayout;
using testing::RecurrentLayout;

std::unique_ptr<SlotPool> MakePool(const StateLayout& layout, int32_t slots, int32_t pages = 64,
                                   bool poison = true) {
  SlotPool::Options options;
  options.num_slots = slots;
  options.num_kv_pages = pages;
  options.poison_released = poison;
  auto pool = SlotPool::Create(layout, options);
  EXPECT_TRUE(pool.ok()) << pool.status();
  return *std::move(pool);
}

bool AllBytesAre(absl::Span<const uint8_t> bytes, int value) {
  for (uint8_t byte : bytes) {
    if (byte != value) return false;
  }
  return true;
}

void FillSlot(SlotPool& pool, const SlotRef& ref, int value) {
  for (size_t e = 0; e < pool.layout().entries.size(); ++e) {
    if (pool.layout().entries[e].paged()) continue;
    auto bytes = pool.SlotBytes(ref, e);
    std::memset(bytes.data(), value, bytes.size());
  }
}

bool SlotIs(SlotPool& pool, const SlotRef& ref, int value) {
  for (size_t e = 0; e < pool.layout().entries.size(); ++e) {
    if (!pool.layout().entries[e].paged() && !AllBytesAre(pool.SlotBytes(ref, e), value)) {
      return false;
    }
  }
  return true;
}

// The first key of each of the sequence's tokens, written as if by the model.
void WriteToken(SlotPool& pool, SlotRef& ref, float value) {
  ASSERT_TRUE(pool.PrepareWrite(ref, 1).ok());
  for (int e = 3; e <= 4; ++e) {
    auto page = pool.PageBytes(ref, e, ref.position / kKvPageTokens);
    std::memcpy(page.data() + (ref.position % kKvPageTokens) * 8, &value, sizeof(value));
  }
  ++ref.position;
}
float ReadToken(SlotPool& pool, const SlotRef& ref, int64_t token, int entry = 3) {
  float value;
  auto page = pool.PageBytes(ref, entry, token / kKvPageTokens);
  std::memcpy(&value, page.data() + (token % kKvPageTokens) * 8, sizeof(value));
  return value;
}

TEST(SlotPoolTest, AcquiredSlotIsZeroEvenAfterAnotherUse) {
  auto pool = MakePool(RecurrentLayout(), 1);
  SlotRef ref = *pool->Acquire();
  EXPECT_TRUE(SlotIs(*pool, ref, 0));
  FillSlot(*pool, ref, 0x5a);
  pool->Release(ref);
  EXPECT_EQ(ref.slot, -1);
  ref = *pool->Acquire();
  EXPECT_TRUE(SlotIs(*pool, ref, 0));
}

TEST(SlotPoolTest, ReleasedSlotAndPagesReadAsNaN) {
  auto pool = MakePool(HybridLayout(), 2);
  SlotRef ref = *pool->Acquire();
  WriteToken(*pool, ref, 1);
  const SlotRef stale = ref;
  pool->Release(ref);
  float recurrent;
  std::memcpy(&recurrent, pool->SlotBytes(stale, 1).data(), sizeof(recurrent));
  EXPECT_TRUE(std::isnan(recurrent));
  double t;
  std::memcpy(&t, pool->SlotBytes(stale, 2).data(), sizeof(t));
  EXPECT_TRUE(std::isnan(t));
  EXPECT_TRUE(std::isnan(ReadToken(*pool, stale, 0)));
}

TEST(SlotPoolTest, ExhaustionIsAnErrorAndReleaseCuresIt) {
  auto pool = MakePool(RecurrentLayout(), 2);
  SlotRef a = *pool->Acquire(), b = *pool->Acquire();
  EXPECT_EQ(pool->Acquire().status().code(), absl::StatusCode::kResourceExhausted);
  pool->Release(a);
  EXPECT_TRUE(pool->Acquire().ok());
}

TEST(SlotPoolTest, WhatIsPendingIsCopiedWithItsSlot) {
  StateLayout layout = RecurrentLayout();
  layout.pending_room = 3;
  layout.pending.push_back(layout.entries.front());
  layout.pending.back().shape = {3, 5};
  auto pool = MakePool(layout, 3);
  EXPECT_EQ(pool->usage().slot_bytes, layout.slot_bytes() + 3 * 5 * sizeof(float));
  const StateArrays& arrays = pool->arrays();
  EXPECT_EQ(arrays.base.size(), layout.entries.size());
  ASSERT_EQ(arrays.pending_base.size(), 1u);
  EXPECT_EQ(arrays.pending_stride.front(), 15);
  auto* pending = static_cast<float*>(arrays.pending_base.front());
  SlotRef parent = *pool->Acquire();
  pending[15 * parent.slot + 4] = 2.5f;
  parent.pending = 1;
  SlotRef fork = pool->Share(parent);
  EXPECT_EQ(fork.pending, 1);
  ASSERT_TRUE(pool->PrepareWrite(fork, 1).ok());
  ASSERT_NE(fork.slot, parent.slot);
  EXPECT_EQ(pending[15 * fork.slot + 4], 2.5f);
  const SlotRef stale = fork;
  pool->Release(fork);
  EXPECT_TRUE(std::isnan(pending[15 * stale.slot + 4]));
}

TEST(SlotPoolTest, ForksTakeNoSlotUntilOneIsWritten) {
  auto pool = MakePool(HybridLayout(), 2);
  SlotRef parent = *pool->Acquire();
  FillSlot(*pool, parent, 7);
  std::vector<SlotRef> forks;
  for (int i = 0; i < 1000; ++i) forks.push_back(pool->Share(parent));
  EXPECT_EQ(pool->usage().slots_used, 1);
  ASSERT_TRUE(pool->PrepareWrite(forks[0], 1).ok());
  EXPECT_EQ(pool->usage().slots_used, 2);
  EXPECT_NE(forks[0].slot, parent.slot);
  EXPECT_TRUE(SlotIs(*pool, forks[0], 7));
  FillSlot(*pool, forks[0], 9);
  EXPECT_TRUE(SlotIs(*pool, parent, 7));
  for (SlotRef& fork : forks) pool->Release(fork);
  EXPECT_EQ(pool->usage().slots_used, 1);
}

TEST(SlotPoolTest, LastHolderWritesInPlace) {
  auto pool = MakePool(HybridLayout(), 2);
  SlotRef parent = *pool->Acquire();
  WriteToken(*pool, parent, 1);
  SlotRef fork = pool->Share(parent);
  const int32_t slot = parent.slot, page = parent.pages[0];
  pool->Release(parent);
  ASSERT_TRUE(pool->PrepareWrite(fork, 1).ok());
  EXPECT_EQ(fork.slot, slot);
  EXPECT_EQ(fork.pages[0], page);
}

TEST(SlotPoolTest, WriteCopiesOnlyThePartlyFilledPage) {
  auto pool = MakePool(HybridLayout(), 4);
  SlotRef parent = *pool->Acquire();
  for (int i = 0; i < 2 * kKvPageTokens + 10; ++i) WriteToken(*pool, parent, i);
  ASSERT_EQ(parent.pages.size(), 3u);
  SlotRef fork = pool->Share(parent);
  EXPECT_EQ(pool->usage().pages_used, 3);
  WriteToken(*pool, fork, -1);
  EXPECT_EQ(pool->usage().pages_used, 4);
  EXPECT_EQ(fork.pages[0], parent.pages[0]);
  EXPECT_EQ(fork.pages[1], parent.pages[1]);
  EXPECT_NE(fork.pages[2], parent.pages[2]);
  WriteToken(*pool, parent, -2);
  for (int e = 3; e <= 4; ++e) {
    for (int i = 0; i < 2 * kKvPageTokens + 10; ++i) {
      ASSERT_EQ(ReadToken(*pool, fork, i, e), i);
      ASSERT_EQ(ReadToken(*pool, parent, i, e), i);
    }
    EXPECT_EQ(ReadToken(*pool, fork, 2 * kKvPageTokens + 10, e), -1);
    EXPECT_EQ(ReadToken(*pool, parent, 2 * kKvPageTokens + 10, e), -2);
  }
}

TEST(SlotPoolTest, ForkAtAPageBorderCopiesNoPage) {
  auto pool = MakePool(HybridLayout(), 4);
  SlotRef parent = *pool->Acquire();
  for (int i = 0; i < kKvPageTokens; ++i) WriteToken(*pool, parent, i);
  // A page asked for ahead belongs to the parent alone.
  ASSERT_TRUE(pool->PrepareWrite(parent, 1).ok());
  EXPECT_EQ(pool->usage().pages_used, 2);
  SlotRef fork = pool->Share(parent);
  EXPECT_EQ(fork.pages.size(), 1u);
  WriteToken(*pool, fork, 5);
  EXPECT_EQ(pool->usage().pages_used, 3);
  EXPECT_EQ(fork.pages[0], parent.pages[0]);
}

TEST(SlotPoolTest, FailedPrepareLeavesTheReferenceAsItWas) {
  auto pool = MakePool(HybridLayout(), 1, /*pages=*/2);
  SlotRef ref = *pool->Acquire();
  WriteToken(*pool, ref, 3);
  const std::vector<int32_t> pages = ref.pages;
  EXPECT_EQ(pool->PrepareWrite(ref, 2 * kKvPageTokens).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ref.pages, pages);
  EXPECT_EQ(pool->usage().pages_used, 1);
  // Enough pages, but the slot is shared and there is no second one.
  SlotRef fork = pool->Share(ref);
  EXPECT_EQ(pool->PrepareWrite(fork, 1).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(fork.slot, ref.slot);
  EXPECT_EQ(fork.pages, pages);
  EXPECT_EQ(ReadToken(*pool, fork, 0), 3);
  pool->Release(fork);
  pool->Release(ref);
  EXPECT_EQ(pool->usage().pages_used, 0);
}

TEST(SlotPoolTest, RefusesLayoutsAndOptionsOutOfRange) {
  const auto code = [](const StateLayout& layout, int32_t slots, int32_t pages) {
    SlotPool::Options options;
    options.num_slots = slots;
    options.num_kv_pages = pages;
    return SlotPool::Create(layout, options).status().code();
  };
  EXPECT_EQ(code(HybridLayout(), 0, 4), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(HybridLayout(), 4, 0), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(RecurrentLayout(), 4, 0), absl::StatusCode::kOk);
  StateLayout layout = RecurrentLayout();
  layout.entries[0].shape = {int64_t{1} << 40, int64_t{1} << 40};
  EXPECT_EQ(code(layout, 4, 4), absl::StatusCode::kInvalidArgument);
  layout.entries[0].shape = {-1, 4};
  EXPECT_EQ(code(layout, 4, 4), absl::StatusCode::kInvalidArgument);
  // Overflow-free, but more than the address space has.
  layout.entries[0].shape = {int64_t{1} << 50};
  EXPECT_EQ(code(layout, 64, 4), absl::StatusCode::kResourceExhausted);
}

TEST(SlotPoolTest, ManyLargeSlotsCostNothingBeforeUse) {
  StateLayout layout = RecurrentLayout();
  layout.entries[1].shape = {int64_t{1} << 26};  // 256 MiB a slot, 64 GiB together
  auto pool = MakePool(layout, 256);
  EXPECT_EQ(pool->usage().slots_total, 256);
}

// Ten thousand random operations; the counts must come out as if every reference were known.
TEST(SlotPoolTest, RandomUseLeaksNothing) {
  auto pool = MakePool(HybridLayout(), 24, 40);
  std::mt19937 random(11);
  std::vector<SlotRef> refs;
  for (int step = 0; step < 10000; ++step) {
    const int action = random() % 10;
    const size_t pick = refs.empty() ? 0 : random() % refs.size();
    if (action < 2) {
      auto ref = pool->Acquire();
      if (ref.ok()) refs.push_back(*std::move(ref));
    } else if (action < 4 && !refs.empty()) {
      refs.push_back(pool->Share(refs[pick]));
    } else if (action < 8 && !refs.empty()) {
      const int64_t tokens = random() % 300;
      // Half of the prepared writes are given up, as when a step fails.
      if (pool->PrepareWrite(refs[pick], tokens).ok() && random() % 2) {
        refs[pick].position += tokens;
      }
    } else if (!refs.empty()) {
      pool->Release(refs[pick]);
      refs.erase(refs.begin() + pick);
    }
    std::set<int32_t> slots, pages;
    for (const SlotRef& ref : refs) {
      slots.insert(ref.slot);
      pages.insert(ref.pages.begin(), ref.pages.end());
    }
    ASSERT_EQ(pool->usage().slots_used, static_cast<int32_t>(slots.size())) << step;
    ASSERT_EQ(pool->usage().pages_used, static_cast<int32_t>(pages.size())) << step;
  }
  for (SlotRef& ref : refs) pool->Release(ref);
  EXPECT_EQ(pool->usage().slots_used, 0);
  EXPECT_EQ(pool->usage().pages_used, 0);
}

TEST(SlotPoolTest, ThreadsForkAndWriteOneParent) {
  auto pool = MakePool(HybridLayout(), 16);
  SlotRef parent = *pool->Acquire();
  WriteToken(*pool, parent, 3);
  FillSlot(*pool, parent, 42);
  std::vector<SlotRef> forks;
  for (int i = 0; i < 8; ++i) forks.push_back(pool->Share(parent));
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 50; ++round) {
        WriteToken(*pool, forks[i], i);
        FillSlot(*pool, forks[i], i);
        pool->Release(forks[i]);
        forks[i] = pool->Share(parent);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(SlotIs(*pool, parent, 42));
  EXPECT_EQ(ReadToken(*pool, parent, 0), 3);
  for (SlotRef& fork : forks) pool->Release(fork);
  EXPECT_EQ(pool->usage().slots_used, 1);
  EXPECT_EQ(pool->usage().pages_used, 1);
}

TEST(SlotPoolTest, AnUnsetSlotIsGivenAsItWasLeft) {
  auto pool = MakePool(HybridLayout(), 1, 4, /*poison=*/false);
  SlotRef ref = *pool->Acquire();
  FillSlot(*pool, ref, 7);
  pool->Release(ref);
  ref = *pool->AcquireUnset();
  EXPECT_TRUE(AllBytesAre(pool->SlotBytes(ref, 0), 7));
  EXPECT_EQ(pool->AcquireUnset().status().code(), absl::StatusCode::kResourceExhausted);
  pool->Release(ref);
  ref = *pool->Acquire();
  EXPECT_TRUE(AllBytesAre(pool->SlotBytes(ref, 0), 0));
}

}  // namespace
}  // namespace anabranch
