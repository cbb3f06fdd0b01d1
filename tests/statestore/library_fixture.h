// A library in a temporary directory, and short ways to build records. For tests of the store.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "statestore/state_store.h"

namespace anabranch {

inline constexpr char kTenant[] = "acme";

// A directory that goes away with its owner.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "anabranch-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline StateRecord MakeState(std::vector<int32_t> span, const StateRecord* parent = nullptr) {
  StateRecord record;
  record.tenant = kTenant;
  record.fingerprint = "model-a";
  record.numerics_profile = "cpu-float32";
  if (parent != nullptr) record.parents = {parent->id};
  record.token_count =
      (parent != nullptr ? parent->token_count : 0) + static_cast<int64_t>(span.size());
  record.span_tokens = std::move(span);
  record.header = "header";
  record.id = StateId(record);
  return record;
}

inline PutState Put(StateRecord record, std::string payload = "payload") {
  return PutState{std::move(record), std::move(payload), {}};
}

inline PutSession NewSession(std::string id, const StateRecord* head = nullptr) {
  PutSession operation;
  operation.record.tenant = kTenant;
  operation.record.id = std::move(id);
  operation.record.fingerprint = "model-a";
  if (head != nullptr) {
    operation.record.head_state = head->id;
    operation.record.head_position = head->token_count;
  }
  return operation;
}

template <typename... Operations>
Mutation Of(Operations... operations) {
  Mutation mutation;
  (mutation.operations.emplace_back(std::move(operations)), ...);
  return mutation;
}

MATCHER_P2(FailsWith, code, part, "") {
  const absl::Status& status = arg;
  *result_listener << status;
  return status.code() == code && absl::StrContains(status.message(), part);
}

class LibraryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.directory = directory_.path() + "/library";
    options_.block_cache_bytes = 8 << 20;
    Reopen();
  }

  void Close() { store_.reset(); }
  void Reopen() {
    Close();
    absl::StatusOr<std::unique_ptr<StateStore>> store = OpenStateStore(options_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  template <typename... Operations>
  absl::Status Commit(Operations... operations) {
    return store_->CommitAndWait(Of(std::move(operations)...));
  }

  TemporaryDirectory directory_;
  StoreOptions options_;
  std::unique_ptr<StateStore> store_;
};

}  // namespace anabranch
