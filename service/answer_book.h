// Makes retries safe: the final answer of a call is stored under its request id in the same
// mutation as the call's effect, and a repeat gets that answer.
//
// Thread rule: every member may be called from any thread. Claim reads the library.
#pragma once

#include <google/protobuf/message.h>

#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "statestore/state_store.h"

namespace anabranch {

class AnswerBook {
 public:
  explicit AnswerBook(StateStore* store) : store_(store) {}

  // One call's hold on its request id; a second call with the same id is ABORTED (reason
  // REQUEST_IN_PROGRESS) until this is gone. Empty for calls without an id.
  class Claim {
   public:
    Claim() = default;
    Claim(Claim&& other) noexcept { *this = std::move(other); }
    Claim& operator=(Claim&& other) noexcept;
    ~Claim() { Release(); }

    // Adds the answer to the mutation that makes the call's effect durable; nothing without an id.
    void StageAnswer(const google::protobuf::Message& answer, Mutation* mutation) const;

   private:
    friend class AnswerBook;
    void Release();
    AnswerBook* book_ = nullptr;
    std::string tenant_, request_id_;
  };

  // True: the request was answered before, and `answer` is that answer. INVALID_ARGUMENT if the id
  // belongs to a call of another kind.
  absl::StatusOr<bool> Begin(const std::string& tenant, const std::string& request_id,
                             google::protobuf::Message* answer, Claim* claim);

 private:
  StateStore* const store_;
  absl::Mutex mutex_;
  absl::flat_hash_set<std::pair<std::string, std::string>> running_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace anabranch
