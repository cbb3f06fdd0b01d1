// Byte-pair encoding: the "model" of tokenizer.json. Immutable after load; any thread may encode.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/tokenizer/json_fields.h"

namespace anabranch::tokenizer {

class Bpe {
 public:
  // `special` are contents of special tokens: the model never makes one out of text, so text that
  // looks like a control token cannot become one. INVALID_ARGUMENT for other model types, ids out
  // of range or given twice, and merges of unknown tokens.
  static absl::StatusOr<std::unique_ptr<Bpe>> Parse(
      const Json* model, const absl::flat_hash_set<std::string>& special);

  // Buffers that Encode reuses between words. One per thread.
  class Scratch {
    friend class Bpe;
    struct Symbol {
      int32_t id = 0;  // -1: merged into its left neighbour
      int32_t previous = -1, next = -1;
    };
    struct Candidate {
      uint32_t rank = 0;
      int32_t left = 0;    // index of the left symbol
      int32_t merged = 0;  // id of the result
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;  // lowest rank first, then leftmost
  };
  // Appends the ids of one word (valid UTF-8). O(n log n) in its length.
  void Encode(absl::string_view word, Scratch* scratch, std::vector<int32_t>* ids) const;

  std::optional<int32_t> TokenId(absl::string_view token) const;
  // The token's content; empty for an id that is not in the vocabulary.
  absl::string_view Token(int32_t id) const;
  int32_t vocab_size() const { return static_cast<int32_t>(tokens_.size()); }  // highest id + 1

 private:
  struct Merge {
    uint32_t rank = 0;
    int32_t merged = 0;
  };
  Bpe() = default;
  absl::Status ReadOptions(const Json& model);
  absl::Status ReadVocab(const Json& model);
  absl::Status ReadMerges(const Json& model, const absl::flat_hash_set<std::string>& special);
  absl::Status AddMerge(absl::string_view left, absl::string_view right, size_t rank,
                        const absl::flat_hash_set<std::string>& special);
  void FindWholeTokens(const absl::flat_hash_set<std::string>& special);

  void StartSymbols(absl::string_view word, Scratch* scratch) const;
  bool StartWithBytes(absl::string_view character, Scratch* scratch) const;
  void PushCandidate(int32_t left, Scratch* scratch) const;
  void MergeSymbols(Scratch* scratch) const;

  std::vector<std::string> tokens_;                      // by id
  absl::flat_hash_map<absl::string_view, int32_t> ids_;  // keys point into tokens_
  absl::flat_hash_map<uint64_t, Merge> merges_;          // left << 32 | right
  // Tokens that a word equal to them encodes to: all non-special ones with ignore_merges, else
  // those that the merges produce from their characters. Saves merging most words of ordinary text.
  absl::flat_hash_map<absl::string_view, int32_t> whole_;
  int32_t byte_ids_[256] = {};  // of "<0xHH>", -1: not in the vocabulary
  int32_t unk_id_ = -1;
  bool ignore_merges_ = false, byte_fallback_ = false, fuse_unk_ = false;
};

}  // namespace anabranch::tokenizer
