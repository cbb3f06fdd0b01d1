// The search index: words and embeddings of states, derived from the library and kept beside it in
// one SQLite file (full text search with BM25) so that opening is fast. It holds nothing that the
// library does not: a file that is lost, damaged or of another format is made anew, empty, and
// whoever feeds the index sees from watermark() that it has to be filled again.
//
// Tenants share the file and nothing else: each has full text tables of its own, so that not even
// how rare a word is tells one tenant about another.
//
// Embeddings are also held in memory, 4 bytes a dimension and state, and scanned exactly.
//
// Thread rule: Apply by one thread at a time; everything else by any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "statestore/records.h"
#include "statestore/state_store.h"

namespace anabranch {

// What is kept of a state. Of the record: tenant, id, fingerprint, created, labels and etag.
struct IndexedState {
  StateRecord record;
  std::string text;
  std::vector<float> embedding;  // of length 1; empty: none
};

// Which states a search may find.
struct IndexFilter {
  std::string tenant;
  StateFilter state;  // descendant_of is not looked at:
  // Ids that may be found; null: any.
  const absl::flat_hash_set<std::string>* ids = nullptr;
  std::string not_id;  // one that may not
  // Asked now and then by FindWords; true ends it with CANCELLED. Empty: never.
  std::function<bool()> stop;
};

struct IndexHit {
  std::string id;
  double score = 0;
};

class SearchIndex {
 public:
  // `directory` is made if it is missing.
  static absl::StatusOr<std::unique_ptr<SearchIndex>> Open(const std::string& directory);
  virtual ~SearchIndex() = default;

  // Adds or replaces, removes, and moves the watermark: all or nothing. DATA_LOSS: the file is
  // damaged; Reset and fill again.
  virtual absl::Status Apply(const std::vector<IndexedState>& put,
                             const std::vector<StateName>& remove, uint64_t watermark) = 0;
  // Makes it empty, with the watermark 0.
  virtual absl::Status Reset() = 0;

  // The commit of the library up to which the index holds everything; 0: nothing is known.
  virtual uint64_t watermark() const = 0;
  // The etag of the record as it was put; nullopt: not in the index.
  virtual std::optional<uint64_t> Etag(const StateName& state) const = 0;
  virtual std::vector<StateName> States() const = 0;
  virtual int64_t Count(const IndexFilter& filter) const = 0;

  // By words: any of the query's (letters and digits, in their stems) may occur; BM25, larger is
  // better. Best first, at most `limit`.
  virtual absl::StatusOr<std::vector<IndexHit>> FindWords(const std::string& query,
                                                          const IndexFilter& filter,
                                                          size_t limit) = 0;
  // In how many of the tenant's states the word occurs, in any of its inflections; counted up to
  // `at_most`.
  virtual absl::StatusOr<int64_t> CountWith(const std::string& tenant, const std::string& word,
                                            int64_t at_most) = 0;
  // By embedding: cosine after the mean of the tenant's embeddings of that model was taken off
  // both. filter.state.fingerprint must be set. Best first, at most `limit`.
  virtual std::vector<IndexHit> FindNearest(absl::Span<const float> query,
                                            const IndexFilter& filter, size_t limit) const = 0;
  // About `words` words of the state's text around the query's; empty if there is none.
  virtual absl::StatusOr<std::string> Snippet(const StateName& state, const std::string& query,
                                              int words) = 0;
  // The text of a state as it was put.
  virtual absl::StatusOr<std::string> Text(const StateName& state) = 0;
};

}  // namespace anabranch
