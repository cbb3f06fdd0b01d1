// What a crash test writes, and how it knows afterwards that nothing acknowledged is lost. Each
// writer commits numbered steps; everything a step writes follows from the writer and the number,
// so a library can be checked against the numbers that were acknowledged alone.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "statestore/state_store.h"

namespace anabranch {

class LedgerWriter {
 public:
  explicit LedgerWriter(int writer) : name_(absl::StrCat("writer-", writer)), writer_(writer) {}

  // The next step: a state below the step's before, the ref moved to it, its token logged, and an
  // answer to its request id. `number()` counts the steps that were taken.
  Mutation Next() {
    const int step = number();
    Mutation mutation;
    if (step == 0) {
      PutSession session;
      session.record = {kLedgerTenant, name_, "", "", 0, "model", {}, {}, {}};
      mutation.operations.push_back(session);
    }
    states_.push_back(StateOf(step));
    PutState put{states_.back(), Payload(step), {}};
    mutation.operations.push_back(put);
    mutation.operations.push_back(
        SetRef{kLedgerTenant, name_, states_.back().id, step == 0 ? "" : states_[step - 1].id});
    mutation.operations.push_back(AppendLog{kLedgerTenant, name_, step, {TokenOf(step)}});
    mutation.operations.push_back(PutAnswer{kLedgerTenant, RequestId(step), absl::StrCat(step)});
    return mutation;
  }
  int number() const { return static_cast<int>(states_.size()); }

  // How many steps the library holds, with all their parts and none of the next; DATA_LOSS says
  // what does not fit. The writer goes on from there.
  absl::StatusOr<int> Recover(StateStore& store) {
    states_.clear();
    const absl::StatusOr<StateStore::LogContents> log = store.GetLog(kLedgerTenant, name_);
    if (!log.ok() && !absl::IsNotFound(log.status())) return log.status();
    const int steps = log.ok() ? static_cast<int>(log->tokens.size()) : 0;
    for (int step = 0; step < steps; ++step) {
      states_.push_back(StateOf(step));
      if (log->tokens[step] != TokenOf(step)) return Misfit("token", step);
      const auto payload = store.GetPayload(kLedgerTenant, states_[step].id);
      if (!payload.ok()) return payload.status();
      if (*payload != Payload(step)) return Misfit("payload", step);
      const auto answer = store.GetAnswer(kLedgerTenant, RequestId(step));
      if (!answer.ok() || *answer != absl::StrCat(step)) return Misfit("answer", step);
    }
    const auto ref = store.GetRef(kLedgerTenant, name_);
    if (steps == 0 ? ref.ok() : (!ref.ok() || ref->state_id != states_.back().id)) {
      return Misfit("ref", steps);
    }
    if (store.GetState(kLedgerTenant, StateOf(steps).id).ok()) return Misfit("state", steps);
    if (store.GetAnswer(kLedgerTenant, RequestId(steps)).ok()) return Misfit("answer", steps);
    return steps;
  }

 private:
  static constexpr char kLedgerTenant[] = "ledger";

  int32_t TokenOf(int step) const { return (writer_ * 7919 + step * 31) % 50000; }
  std::string RequestId(int step) const { return absl::StrCat(name_, ".", step); }
  std::string Payload(int step) const {
    std::string payload = absl::StrCat(name_, "/", step, ":");
    payload.resize(step % 16 == 5 ? 50000 : 300 + step % 700, static_cast<char>('a' + step % 26));
    return payload;
  }
  // The state of `step`, given those before.
  StateRecord StateOf(int step) const {
    StateRecord record;
    record.tenant = kLedgerTenant;
    record.fingerprint = "model";
    record.numerics_profile = "test";
    if (step > 0) record.parents = {states_[step - 1].id};
    record.operation_params = step == 0 ? name_ : "";
    record.span_tokens = {TokenOf(step)};
    record.token_count = step + 1;
    record.labels = {{"kept", "by the ledger"}};  // whatever else lets go of states
    record.id = StateId(record);
    return record;
  }
  absl::Status Misfit(absl::string_view what, int step) const {
    return absl::DataLossError(
        absl::StrCat("the ", what, " of step ", step, " of ", name_, " does not fit"));
  }

  const std::string name_;
  const int writer_;
  std::vector<StateRecord> states_;
};

}  // namespace anabranch
