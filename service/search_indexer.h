// Keeps the search index in step with the library, on a thread of its own: commits are told to it
// and never wait for it. What it missed while the server was down, or all if the index was lost, it
// finds by comparing the index with the library at start.
//
// Which states stand in the index: those that a ref names, the newest of each session, those that
// nothing goes on from, and those with labels or a pin. A long history has many checkpoints, which
// are nearly the same memory; whoever searches wants one of them.
//
// Thread rule: every member may be called from any thread.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "service/served_model.h"
#include "statestore/search_index.h"
#include "statestore/state_store.h"

namespace anabranch {

class SearchIndexer {
 public:
  // All outlive this. Starts the thread and watches the store. Texts are those of the tokenizers of
  // `models`.
  SearchIndexer(StateStore* store, std::vector<const ServedModel*> models, SearchIndex* index);
  // Ends after the state at hand; what is left is found at the next start.
  ~SearchIndexer();

  // A search found the index damaged: it is emptied and filled again. Returns at once.
  void Rebuild();

  // The states that the index has and the library does not, though it was told of all commits
  // before the call: they take the places of others among what a search looks at. Blocks on the
  // library, and on the index at most until `deadline`. Empty if it cannot be said.
  std::vector<StateName> Gone(absl::Time deadline) const;
  // Has the index made as the library is for these states. Returns at once.
  void LookAgain(const std::vector<StateName>& states) { Observe(0, states); }

  // Waits until the index has all that was committed before the call, at most until `deadline`.
  // Returns how many changes it still lacks.
  int64_t WaitUntilCurrent(absl::Time deadline) const;

 private:
  using Key = std::pair<std::string, std::string>;  // tenant, id

  void Observe(uint64_t commit_seq, const std::vector<StateName>& states);
  void Run();
  // Puts every state of the library and of the index into the queue, if they differ.
  void CompareAll();
  void FillAgain();
  std::vector<StateName> Take(uint64_t* watermark);
  void Work(const std::vector<StateName>& states, uint64_t watermark);
  absl::Status Read(const StateName& name, std::vector<IndexedState>* put,
                    std::vector<StateName>* remove) const;
  const ServedModel* ModelOf(const StateRecord& record) const;  // null: it is not served

  StateStore* const store_;
  const std::vector<const ServedModel*> models_;
  SearchIndex* const index_;

  mutable absl::Mutex mutex_;
  std::deque<StateName> queue_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<Key> queued_ ABSL_GUARDED_BY(mutex_);
  uint64_t seen_seq_ ABSL_GUARDED_BY(mutex_) = 0;  // newest commit that was told
  int64_t added_ ABSL_GUARDED_BY(mutex_) = 0;      // to the queue so far
  int64_t done_ ABSL_GUARDED_BY(mutex_) = 0;       // of these
  bool compared_ ABSL_GUARDED_BY(mutex_) = false;  // with the library, at start
  bool damaged_ ABSL_GUARDED_BY(mutex_) = false;   // Rebuild was called
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread thread_;  // last: starts when all else is ready
};

}  // namespace anabranch
