#include "runtime/tokenizer/bpe.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/tokenizer/utf8.h"
#include "statestore/base/status_macros.h"

namespace anabranch::tokenizer {
namespace {

constexpr absl::string_view kName = "model BPE";
constexpr size_t kMaxMerges = 16'000'000;
// A table by id takes memory for every id that is not used; a small file must not ask for much.
constexpr size_t kMaxUnusedIds = 16'384;

uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

// A field this implementation has no code for must have the value that switches it off.
absl::Status RequireOff(const Json& model, const char* name) {
  const Json* value = Find(model, name);
  if (value == nullptr || (value->is_string() && value->get<std::string>().empty()) ||
      (value->is_number() && value->get<double>() == 0)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("unsupported ", kName, " option '", name, "'"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Bpe>> Bpe::Parse(const Json* model,
                                                const absl::flat_hash_set<std::string>& special) {
  if (model == nullptr) return absl::InvalidArgumentError("field 'model' is missing");
  // Files of old versions do not say the type of a BPE model.
  ANABRANCH_ASSIGN_OR_RETURN(const std::string type, StringField(*model, "type", "model", "BPE"));
  if (type != "BPE") return Unsupported("model", type);
  std::unique_ptr<Bpe> bpe(new Bpe());
  ANABRANCH_RETURN_IF_ERROR(bpe->ReadVocab(*model));
  ANABRANCH_RETURN_IF_ERROR(bpe->ReadOptions(*model));
  ANABRANCH_RETURN_IF_ERROR(bpe->ReadMerges(*model, special));
  bpe->FindWholeTokens(special);
  return bpe;
}

absl::Status Bpe::ReadOptions(const Json& model) {
  for (const char* name : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
    ANABRANCH_RETURN_IF_ERROR(RequireOff(model, name));
  }
  ANABRANCH_ASSIGN_OR_RETURN(ignore_merges_, BoolField(model, "ignore_merges", kName, false));
  ANABRANCH_ASSIGN_OR_RETURN(byte_fallback_, BoolField(model, "byte_fallback", kName, false));
  ANABRANCH_ASSIGN_OR_RETURN(fuse_unk_, BoolField(model, "fuse_unk", kName, false));
  for (int byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = TokenId(absl::StrFormat("<0x%02X>", byte)).value_or(-1);
  }
  ANABRANCH_ASSIGN_OR_RETURN(const std::string unk, StringField(model, "unk_token", kName, ""));
  if (unk.empty()) return absl::OkStatus();
  const std::optional<int32_t> unk_id = TokenId(unk);
  if (!unk_id.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(kName, ": unk_token '", unk, "' is not in the vocabulary"));
  }
  unk_id_ = *unk_id;
  return absl::OkStatus();
}

absl::Status Bpe::ReadVocab(const Json& model) {
  const Json* vocab = Find(model, "vocab");
  if (vocab == nullptr || !vocab->is_object() || vocab->empty()) {
    return absl::InvalidArgumentError(absl::StrCat(kName, ": 'vocab' must be a non-empty object"));
  }
  int32_t highest = 0;
  for (const auto& [token, value] : vocab->items()) {
    ANABRANCH_ASSIGN_OR_RETURN(const int32_t id,
                               TokenIdValue(value, absl::StrCat(kName, ": id of '", token, "'")));
    highest = std::max(highest, id);
    if (static_cast<size_t>(id) > 2 * vocab->size() + kMaxUnusedIds) {
      return absl::InvalidArgumentError(absl::StrCat(kName, ": id of '", token, "' is ", id,
                                                     ", far beyond the ", vocab->size(),
                                                     " tokens there are"));
    }
  }
  tokens_.resize(static_cast<size_t>(highest) + 1);
  ids_.reserve(vocab->size());
  std::vector<bool> taken(tokens_.size());
  for (const auto& [token, value] : vocab->items()) {
    const auto id = value.get<int32_t>();
    if (taken[id]) {
      return absl::InvalidArgumentError(absl::StrCat(kName, ": two tokens have id ", id));
    }
    taken[id] = true;
    tokens_[id] = token;
    ids_.emplace(tokens_[id], id);
  }
  return absl::OkStatus();
}

absl::Status Bpe::ReadMerges(const Json& model, const absl::flat_hash_set<std::string>& special) {
  ANABRANCH_ASSIGN_OR_RETURN(const Json* merges, ArrayField(model, "merges", kName));
  if (merges->size() > kMaxMerges) {
    return absl::InvalidArgumentError(
        absl::StrCat(kName, ": ", merges->size(), " merges; at most ", kMaxMerges));
  }
  merges_.reserve(merges->size());
  size_t rank = 0;
  for (const Json& merge : *merges) {
    const auto* line = merge.get_ptr<const std::string*>();
    if (line != nullptr && absl::StartsWith(*line, "#version")) continue;
    absl::string_view left, right;
    if (line != nullptr) {
      const size_t space = line->find(' ');
      if (space != std::string::npos && line->find(' ', space + 1) == std::string::npos) {
        left = absl::string_view(*line).substr(0, space);
        right = absl::string_view(*line).substr(space + 1);
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      left = merge[0].get_ref<const std::string&>();
      right = merge[1].get_ref<const std::string&>();
    }
    if (left.empty() || right.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(kName, ": merge ", rank, " must be two tokens"));
    }
    ANABRANCH_RETURN_IF_ERROR(AddMerge(left, right, rank++, special));
  }
  return absl::OkStatus();
}

absl::Status Bpe::AddMerge(absl::string_view left, absl::string_view right, size_t rank,
                           const absl::flat_hash_set<std::string>& special) {
  const std::string result = absl::StrCat(left, right);
  const auto left_id = TokenId(left), right_id = TokenId(right), merged = TokenId(result);
  if (!left_id.has_value() || !right_id.has_value() || !merged.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(kName, ": merge ", rank, " of '", left, "' and '", right,
                     "' needs tokens that are not in the vocabulary"));
  }
  if (special.contains(result)) return absl::OkStatus();
  merges_.insert_or_assign(PairKey(*left_id, *right_id),
                           Merge{static_cast<uint32_t>(rank), *merged});
  return absl::OkStatus();
}

void Bpe::FindWholeTokens(const absl::flat_hash_set<std::string>& special) {
  Scratch scratch;
  absl::flat_hash_map<absl::string_view, int32_t> whole;
  for (const auto& [token, id] : ids_) {
    if (special.contains(token)) continue;
    if (!ignore_merges_) {
      StartSymbols(token, &scratch);
      MergeSymbols(&scratch);
      if (scratch.symbols.empty() || scratch.symbols[0].id != id || scratch.symbols[0].next != -1) {
        continue;
      }
    }
    whole.emplace(token, id);
  }
  whole_ = std::move(whole);
}

std::optional<int32_t> Bpe::TokenId(absl::string_view token) const {
  const auto it = ids_.find(token);
  return it == ids_.end() ? std::nullopt : std::make_optional(it->second);
}

absl::string_view Bpe::Token(int32_t id) const {
  return id >= 0 && id < vocab_size() ? absl::string_view(tokens_[id]) : absl::string_view();
}

void Bpe::Encode(absl::string_view word, Scratch* scratch, std::vector<int32_t>* ids) const {
  if (const auto it = whole_.find(word); it != whole_.end()) {
    ids->push_back(it->second);
    return;
  }
  StartSymbols(word, scratch);
  MergeSymbols(scratch);
  for (const Scratch::Symbol& symbol : scratch->symbols) {
    if (symbol.id >= 0) ids->push_back(symbol.id);
  }
}

// The tokens of single characters, with what stands for characters that have none.
void Bpe::StartSymbols(absl::string_view word, Scratch* scratch) const {
  scratch->symbols.clear();
  int32_t pending_unk = -1;
  const auto append = [&](int32_t id) { scratch->symbols.push_back({id, -1, -1}); };
  for (size_t pos = 0; pos < word.size();) {
    const size_t begin = pos;
    NextCodePoint(word, &pos);
    const absl::string_view character = word.substr(begin, pos - begin);
    if (const auto it = ids_.find(character); it != ids_.end()) {
      if (pending_unk >= 0) append(std::exchange(pending_unk, -1));
      append(it->second);
      continue;
    }
    if (byte_fallback_ && StartWithBytes(character, scratch)) continue;
    if (unk_id_ < 0) continue;
    if (pending_unk >= 0 && !fuse_unk_) append(pending_unk);
    pending_unk = unk_id_;
  }
  if (pending_unk >= 0) append(pending_unk);
}

bool Bpe::StartWithBytes(absl::string_view character, Scratch* scratch) const {
  for (const char byte : character) {
    if (byte_ids_[static_cast<uint8_t>(byte)] < 0) return false;
  }
  for (const char byte : character) {
    scratch->symbols.push_back({byte_ids_[static_cast<uint8_t>(byte)], -1, -1});
  }
  return true;
}

void Bpe::PushCandidate(int32_t left, Scratch* scratch) const {
  if (left < 0) return;
  const int32_t right = scratch->symbols[left].next;
  if (right < 0) return;
  const auto it = merges_.find(PairKey(scratch->symbols[left].id, scratch->symbols[right].id));
  if (it == merges_.end()) return;
  scratch->heap.push_back({it->second.rank, left, it->second.merged});
}

// Merges the pair of lowest rank, the leftmost first, until none is left. Entries of the heap are
// not removed when a neighbour's merge makes them stale; they are recognised when they come up.
void Bpe::MergeSymbols(Scratch* scratch) const {
  auto& symbols = scratch->symbols;
  auto& heap = scratch->heap;
  const auto later = [](const Scratch::Candidate& a, const Scratch::Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  };
  const auto count = static_cast<int32_t>(symbols.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[i].previous = i - 1;
    symbols[i].next = i + 1 < count ? i + 1 : -1;
  }
  heap.clear();
  for (int32_t i = 0; i + 1 < count; ++i) PushCandidate(i, scratch);
  std::make_heap(heap.begin(), heap.end(), later);
  const auto push = [&](int32_t left) {
    const size_t before = heap.size();
    PushCandidate(left, scratch);
    if (heap.size() > before) std::push_heap(heap.begin(), heap.end(), later);
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Scratch::Candidate top = heap.back();
    heap.pop_back();
    const int32_t right = symbols[top.left].next;
    if (symbols[top.left].id < 0 || right < 0) continue;
    const auto it = merges_.find(PairKey(symbols[top.left].id, symbols[right].id));
    if (it == merges_.end() || it->second.merged != top.merged) continue;
    symbols[top.left].id = top.merged;
    symbols[top.left].next = symbols[right].next;
    symbols[right].id = -1;
    if (symbols[right].next >= 0) symbols[symbols[right].next].previous = top.left;
    push(symbols[top.left].previous);
    push(top.left);
  }
}

}  // namespace anabranch::tokenizer
