// What comes and goes beside the ledger of a crash test: states that are thinned, recoded,
// archived, expire, are evicted and deleted, and garbage that is collected. Everything a state
// holds follows from its number, so whatever is there after a crash can be checked to be whole.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "statestore/state_store.h"

namespace anabranch {

class Churn {
 public:
  static constexpr char kTenant[] = "churn";

  // One round: a line of three states whose middle one is thinned and whose ends are recoded and
  // archived, a state that has expired, one that has and that another goes on from; then a sweep,
  // now and then with a budget.
  static absl::Status Round(StateStore& store, int round) {
    const int base = round * 10;
    const StateRecord root = State(base, nullptr), middle = State(base + 1, &root),
                      end = State(base + 2, &middle);
    Mutation line;
    for (const StateRecord* each : {&root, &middle, &end}) line.operations.push_back(Put(*each));
    line.operations.push_back(ThinState{kTenant, middle.id});
    if (absl::Status status = store.CommitAndWait(std::move(line)); !status.ok()) return status;
    if (absl::Status status = Recode(store, root, end); !status.ok()) return status;
    StateRecord gone = State(base + 3, nullptr), needed = State(base + 4, nullptr);
    gone.expires = needed.expires = absl::Now() - absl::Seconds(1);
    const StateRecord child = State(base + 5, &needed);
    Mutation expiring;
    for (const StateRecord* each :
         std::initializer_list<const StateRecord*>{&gone, &needed, &child}) {
      expiring.operations.push_back(Put(*each));
    }
    if (absl::Status status = store.CommitAndWait(std::move(expiring)); !status.ok()) {
      return status;
    }
    SweepOptions sweep;
    sweep.now = absl::Now();
    sweep.look_again = absl::Milliseconds(1);
    if (round % 3 == 2) sweep.budget = {.high_bytes = 1, .low_bytes = 1};
    return store.Sweep(sweep).status();
  }

  // DATA_LOSS says what is not whole.
  static absl::Status Check(StateStore& store) {
    PageRequest page{1000, ""};
    do {
      const auto listed = store.ListStates(kTenant, {}, page);
      if (!listed.ok()) return listed.status();
      for (const StateRecord& state : listed->items) {
        if (absl::Status status = CheckState(store, state); !status.ok()) return status;
      }
      page.token = listed->next;
    } while (!page.token.empty());
    return absl::OkStatus();
  }

 private:
  static StateRecord State(int number, const StateRecord* parent) {
    StateRecord record;
    record.tenant = kTenant;
    record.fingerprint = "model";
    record.numerics_profile = "test";
    if (parent != nullptr) record.parents = {parent->id};
    record.span_tokens = {number};
    record.token_count = (parent != nullptr ? parent->token_count : 0) + 1;
    record.header = "header";
    record.id = StateId(record);
    return record;
  }
  // Of an earlier life's round they may be recoded, archived or gone.
  static absl::Status Recode(StateStore& store, const StateRecord& root, const StateRecord& end) {
    const auto stored = store.GetState(kTenant, root.id);
    if (stored.ok() && IsWhole(*stored) && stored->codec == StateCodec::kExact) {
      const int number = root.span_tokens.front();
      RecodeState recode{Put(root), stored->payload_checksum, {}};
      recode.put.payload = Payload(number, StateCodec::kNear);
      recode.put.record.codec = StateCodec::kNear;
      recode.put.record.blob_hashes.clear();
      recode.put.blobs.clear();
      Mutation recoding;
      recoding.operations.push_back(std::move(recode));
      if (absl::Status status = store.CommitAndWait(std::move(recoding)); !status.ok()) {
        return status;
      }
    }
    if (!store.GetState(kTenant, end.id).ok()) return absl::OkStatus();
    Mutation archiving;
    archiving.operations.push_back(ArchiveState{kTenant, end.id, {}});
    return store.CommitAndWait(std::move(archiving));
  }
  // Large enough for a file of values, where what stays alive has to move when that is rewritten;
  // and for three parts, of which recoding leaves two, if parts are of 4 KiB.
  static std::string Payload(int number, StateCodec codec) {
    if (codec != StateCodec::kNear) return Payload(number);
    return "near " + Payload(number).substr(0, Payload(number).size() / 2);
  }
  static std::string Payload(int number) {
    std::string payload = absl::StrCat(number, ":");
    payload.resize(number % 2 == 0 ? 10000 : 500, static_cast<char>('a' + number % 26));
    return payload;
  }
  static std::string Blob(int number) { return absl::StrCat("blob of ", number / 10); }
  // States of one round share a blob.
  static PutState Put(const StateRecord& record) {
    const int number = record.span_tokens.front();
    PutState put{record, Payload(number), {Blob(number)}};
    put.record.blob_hashes = {absl::StrCat("b", number / 10)};
    return put;
  }
  static absl::Status CheckState(StateStore& store, const StateRecord& state) {
    const int number = state.span_tokens.front();
    const auto tokens = store.GetTokens(kTenant, state.id);
    if (!tokens.ok()) return tokens.status();
    if (static_cast<int64_t>(tokens->size()) != state.token_count || tokens->back() != number) {
      return absl::DataLossError(absl::StrCat("the tokens of ", number));
    }
    if (!IsWhole(state)) return absl::OkStatus();
    const auto payload = store.GetPayload(kTenant, state.id);
    if (!payload.ok()) return payload.status();
    if (*payload != Payload(number, state.codec)) return absl::DataLossError("a payload");
    if (state.codec == StateCodec::kNear && state.blob_hashes.empty()) return absl::OkStatus();
    const auto blob = store.GetBlob(kTenant, state.blob_hashes.at(0));
    if (!blob.ok()) return blob.status();
    return *blob == Blob(number) ? absl::OkStatus() : absl::DataLossError("a blob");
  }
};

}  // namespace anabranch
