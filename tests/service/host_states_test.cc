// Which states stay in host memory, for how long, and in whose memory.
#include "service/host_states.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace anabranch {
namespace {

constexpr uint64_t kBlock = 64u << 10, kRoom = 3 * (kBlock + 4096);

std::shared_ptr<Device> Cpu() {
  auto device = Device::Open("cpu", 1);
  EXPECT_TRUE(device.ok()) << device.status();
  return *device;
}

StateRecord Record(int number, uint64_t checksum = 1) {
  StateRecord record;
  record.tenant = "default";
  record.id = absl::StrCat("st-", number);
  record.payload_checksum = checksum;
  return record;
}

LoadedState State(int number, size_t bytes = kBlock, uint64_t checksum = 1) {
  LoadedState state;
  state.record = Record(number, checksum);
  state.image.payload = std::string(bytes, static_cast<char>('a' + number));
  state.tokens = {1, 2, 3};
  return state;
}

TEST(HostStatesTest, AKeptStateIsFoundWholeUntilTheLibraryHasAnotherForm) {
  HostStates states(Cpu(), kBlock, kRoom);
  EXPECT_EQ(states.Find(Record(1)), nullptr);
  states.Keep(State(1));
  const auto found = states.Find(Record(1));
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->image.payload, State(1).image.payload);
  EXPECT_EQ(found->tokens, State(1).tokens);
  EXPECT_EQ(states.Find(Record(1, /*checksum=*/2)), nullptr);
  StateRecord recoded = Record(1);
  recoded.codec = StateCodec::kNear;
  EXPECT_EQ(states.Find(recoded), nullptr);
  StateRecord another = Record(1);
  another.tenant = "another";
  EXPECT_EQ(states.Find(another), nullptr);
  EXPECT_EQ(states.stats().hits, 1u);
  EXPECT_EQ(states.stats().misses, 4u);

  states.Keep(State(1, 100, /*checksum=*/2));
  EXPECT_EQ(states.Find(Record(1)), nullptr);
  ASSERT_NE(states.Find(Record(1, 2)), nullptr);
  EXPECT_EQ(states.stats().states, 1);
}

TEST(HostStatesTest, TheLeastRecentlyUsedGoesFirst) {
  HostStates states(Cpu(), kBlock, kRoom);
  for (int i : {1, 2, 3}) states.Keep(State(i));
  ASSERT_NE(states.Find(Record(1)), nullptr);
  states.KeepCaptured(State(4));
  EXPECT_EQ(states.Find(Record(2)), nullptr);
  for (int i : {1, 3, 4}) EXPECT_NE(states.Find(Record(i)), nullptr) << i;
  EXPECT_EQ(states.stats().states, 3);
  EXPECT_LE(states.stats().bytes, kRoom);
}

TEST(HostStatesTest, AskingWhetherAStateIsKeptCountsAsAUseAndAsNoHitOrMiss) {
  HostStates states(Cpu(), kBlock, kRoom);
  EXPECT_FALSE(states.Touch(Record(1)));
  for (int i : {1, 2, 3}) states.Keep(State(i));
  EXPECT_TRUE(states.Touch(Record(1)));
  EXPECT_FALSE(states.Touch(Record(2, /*checksum=*/2)));
  EXPECT_EQ(states.stats().hits + states.stats().misses, 0u);
  states.KeepCaptured(State(4));
  EXPECT_TRUE(states.Touch(Record(1)));
  EXPECT_FALSE(states.Touch(Record(2)));
}

TEST(HostStatesTest, WhatIsReadIntoABlockOfItsIsKeptWhereItLies) {
  HostStates states(Cpu(), kBlock, kRoom);
  for (int number = 1; number <= 5; ++number) {
    LoadedState state = State(number, 100);
    Buffer block = *states.Block(100);
    std::fill_n(static_cast<char*>(block.data()), 100, static_cast<char>('a' + number));
    const void* const data = block.data();
    state.image.payload = StateBytes(std::move(block), 100);
    states.Keep(std::move(state));
    const auto found = states.Find(Record(number));
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->image.payload.data(), data);
    EXPECT_EQ(found->image.payload, State(number, 100).image.payload);
    EXPECT_GE(states.stats().bytes, states.stats().states * kBlock) << "blocks count in full";
    EXPECT_LE(states.stats().states, 3);
  }
  EXPECT_EQ(states.stats().states, 3);
}

TEST(HostStatesTest, WhatIsTooLargeIsGivenBackButNotKept) {
  HostStates states(Cpu(), kBlock, kRoom);
  states.Keep(State(1));
  const auto large = states.Keep(State(2, kRoom + 1));
  ASSERT_NE(large, nullptr);
  EXPECT_EQ(large->image.payload.size(), kRoom + 1);
  EXPECT_EQ(states.Find(Record(2)), nullptr);
  EXPECT_NE(states.Find(Record(1)), nullptr) << "nothing had to go for it";
}

TEST(HostStatesTest, NoRoomMeansNothingIsKept) {
  HostStates states(Cpu(), kBlock, 0);
  EXPECT_FALSE(states.enabled());
  EXPECT_EQ(states.Keep(State(1))->tokens, State(1).tokens);
  EXPECT_EQ(states.Find(Record(1)), nullptr);
  EXPECT_EQ(states.stats().misses, 0u);
}

// Whoever restores from a state holds it until it is done.
TEST(HostStatesTest, AStateInUseOutlivesItsPlace) {
  HostStates states(Cpu(), kBlock, kRoom);
  states.KeepCaptured(State(1));
  const auto used = states.Find(Record(1));
  ASSERT_NE(used, nullptr);
  for (int i : {2, 3, 4, 5}) states.KeepCaptured(State(i));
  EXPECT_EQ(states.Find(Record(1)), nullptr);
  EXPECT_EQ(used->image.payload, State(1).image.payload);
}

TEST(HostStatesTest, BlocksOfThoseThatWentAreUsedAgain) {
  HostStates states(Cpu(), kBlock, kRoom);
  std::vector<const char*> blocks;
  for (int i = 0; i < 9; ++i) {
    states.KeepCaptured(State(i));
    blocks.push_back(states.Find(Record(i))->image.payload.data());
  }
  std::sort(blocks.begin(), blocks.end());
  EXPECT_EQ(std::unique(blocks.begin(), blocks.end()) - blocks.begin(), 3);
}

}  // namespace
}  // namespace anabranch
