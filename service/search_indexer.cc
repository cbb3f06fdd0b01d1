#include "service/search_indexer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/state_image.h"
#include "service/logging.h"
#include "service/state_embedding.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr size_t kBatch = 64;
// Of a longer history the newest tokens are indexed.
constexpr int64_t kMaxIndexedTokens = 32768;
constexpr absl::Duration kRetryAfter = absl::Seconds(1);

// Special tokens part the text and are no words of it.
std::string TextOf(const ServedModel& model, const std::vector<int32_t>& tokens) {
  const Tokenizer* tokenizer = model.tokenizer();
  if (tokenizer == nullptr) return "";
  std::string text;
  std::vector<int32_t> piece;
  const auto end_piece = [&] {
    if (!piece.empty()) absl::StrAppend(&text, tokenizer->Decode(piece, false), "\n");
    piece.clear();
  };
  const int64_t count = tokens.size();
  for (int64_t i = std::max<int64_t>(0, count - kMaxIndexedTokens); i < count; ++i) {
    if (tokenizer->IsSpecial(tokens[i])) {
      end_piece();
    } else {
      piece.push_back(tokens[i]);
    }
  }
  end_piece();
  return text;
}

}  // namespace

SearchIndexer::SearchIndexer(StateStore* store, std::vector<const ServedModel*> models,
                             SearchIndex* index)
    : store_(store), models_(std::move(models)), index_(index) {
  // First watch, then look how far the library is: nothing falls between.
  store_->SetObserver([this](uint64_t commit_seq, const std::vector<StateName>& states) {
    Observe(commit_seq, states);
  });
  thread_ = std::thread([this] { Run(); });
}

SearchIndexer::~SearchIndexer() {
  store_->SetObserver(nullptr);
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void SearchIndexer::Observe(uint64_t commit_seq, const std::vector<StateName>& states) {
  absl::MutexLock lock(&mutex_);
  seen_seq_ = std::max(seen_seq_, commit_seq);
  for (const StateName& state : states) {
    if (!queued_.insert(Key(state.tenant, state.id)).second) continue;
    queue_.push_back(state);
    ++added_;
  }
}

void SearchIndexer::Rebuild() {
  absl::MutexLock lock(&mutex_);
  damaged_ = true;
  compared_ = false;
}

int64_t SearchIndexer::WaitUntilCurrent(absl::Time deadline) const {
  absl::MutexLock lock(&mutex_);
  const int64_t wanted = added_;
  const auto current = [this, wanted]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return (compared_ && done_ >= wanted) || stopping_;
  };
  mutex_.AwaitWithDeadline(absl::Condition(&current), deadline);
  return compared_ ? std::max<int64_t>(wanted - done_, 0) : std::max<int64_t>(added_ - done_, 1);
}

// What is gone now may be on its way out of the index. A commit is answered after those before it
// were told, also one that changes nothing.
std::vector<StateName> SearchIndexer::Gone(absl::Time deadline) const {
  const auto stays = [this](const StateName& name) {
    return !absl::IsNotFound(store_->GetState(name.tenant, name.id).status());
  };
  std::vector<StateName> states = index_->States();
  states.erase(std::remove_if(states.begin(), states.end(), stays), states.end());
  if (states.empty()) return states;
  if (!store_->CommitAndWait(Mutation()).ok() || WaitUntilCurrent(deadline) > 0) return {};
  const auto left = [&](const StateName& name) {
    return stays(name) || !index_->Etag(name).has_value();
  };
  states.erase(std::remove_if(states.begin(), states.end(), left), states.end());
  return states;
}

void SearchIndexer::Run() {
  CompareAll();
  while (true) {
    uint64_t watermark = 0;
    const std::vector<StateName> states = Take(&watermark);
    if (!states.empty()) {
      Work(states, watermark);
      continue;
    }
    {
      absl::MutexLock lock(&mutex_);
      if (!std::exchange(damaged_, false)) break;
    }
    FillAgain();
  }
  // Commits that concern no state move the watermark too.
  absl::MutexLock lock(&mutex_);
  if (queue_.empty() && seen_seq_ > index_->watermark()) {
    index_->Apply({}, {}, seen_seq_).IgnoreError();
  }
}

void SearchIndexer::CompareAll() {
  const uint64_t commit_seq = store_->stats().commit_seq;
  std::vector<StateName> states;
  if (index_->watermark() != commit_seq) {
    states = index_->States();
    auto stored = store_->AllStates();
    if (stored.ok()) {
      states.insert(states.end(), stored->begin(), stored->end());
    } else {
      LogEvent(LogLevel::kWarning, "search_index_incomplete",
               {{"error", std::string(stored.status().message())}});
    }
    LogEvent(LogLevel::kInfo, "search_index_behind",
             {{"watermark", static_cast<int64_t>(index_->watermark())},
              {"commit_seq", static_cast<int64_t>(commit_seq)}});
  }
  Observe(commit_seq, states);
  absl::MutexLock lock(&mutex_);
  compared_ = true;
}

// States come back one by one: until then searches find what is there, and say what is missing.
void SearchIndexer::FillAgain() {
  const absl::Status emptied = index_->Reset();
  const auto stored = store_->AllStates();
  LogEvent(LogLevel::kWarning, "search_index_rebuilt",
           {{"states", stored.ok() ? static_cast<int64_t>(stored->size()) : 0},
            {"error", std::string(emptied.ok() ? stored.status().message() : emptied.message())}});
  if (stored.ok()) Observe(0, *stored);
  absl::MutexLock lock(&mutex_);
  compared_ = true;
}

// The watermark moves only when nothing is left to do: before that, some earlier commit may still
// be in the queue. Empty: the end, or a damaged index.
std::vector<StateName> SearchIndexer::Take(uint64_t* watermark) {
  absl::MutexLock lock(&mutex_);
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || damaged_ || !queue_.empty();
  };
  mutex_.Await(absl::Condition(&ready));
  std::vector<StateName> states;
  if (damaged_ || (stopping_ && queue_.size() > kBatch)) return states;
  while (!queue_.empty() && states.size() < kBatch) {
    queued_.erase(Key(queue_.front().tenant, queue_.front().id));
    states.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  *watermark = queue_.empty() ? seen_seq_ : 0;
  return states;
}

void SearchIndexer::Work(const std::vector<StateName>& states, uint64_t watermark) {
  std::vector<IndexedState> put;
  std::vector<StateName> remove;
  for (const StateName& state : states) {
    const absl::Status read = Read(state, &put, &remove);
    if (read.ok()) continue;
    // A damaged state cannot be resumed either: it is not to be found.
    remove.push_back(state);
    LogEvent(LogLevel::kWarning, "search_index_skips",
             {{"state", state.id}, {"error", std::string(read.message())}});
  }
  const absl::Status applied =
      index_->Apply(put, remove, watermark == 0 ? index_->watermark() : watermark);
  if (applied.ok()) {
    absl::MutexLock lock(&mutex_);
    done_ += states.size();
    return;
  }
  LogEvent(LogLevel::kWarning, "search_index_failed", {{"error", std::string(applied.message())}});
  Observe(0, states);
  if (absl::IsDataLoss(applied)) FillAgain();
  absl::MutexLock lock(&mutex_);
  done_ += states.size();
  mutex_.AwaitWithTimeout(absl::Condition(&stopping_), kRetryAfter);
}

absl::Status SearchIndexer::Read(const StateName& name, std::vector<IndexedState>* put,
                                 std::vector<StateName>* remove) const {
  auto record = store_->GetState(name.tenant, name.id);
  if (absl::IsNotFound(record.status())) {
    remove->push_back(name);
    return absl::OkStatus();
  }
  ANABRANCH_RETURN_IF_ERROR(record.status());
  ANABRANCH_ASSIGN_OR_RETURN(const StateUse use, store_->GetStateUse(name.tenant, name.id));
  const bool stands_for_something = use.child.empty() || !use.ref.empty() || !use.session.empty() ||
                                    !record->labels.empty() || record->pinned;
  if (!stands_for_something) {
    remove->push_back(name);
    return absl::OkStatus();
  }
  if (index_->Etag(name) == record->etag) return absl::OkStatus();
  IndexedState state;
  if (const ServedModel* model = ModelOf(*record); model != nullptr) {
    ANABRANCH_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens,
                               store_->GetTokens(name.tenant, name.id));
    state.text = TextOf(*model, tokens);
  } else if (index_->Etag(name).has_value()) {
    ANABRANCH_ASSIGN_OR_RETURN(state.text, index_->Text(name));  // from when it was served
  }
  // A state that was stored without stays without.
  const auto header = ParseStateHeader(record->header);
  if (header.ok()) state.embedding = EmbeddingOf(header->inner_sum);
  state.record = *std::move(record);
  put->push_back(std::move(state));
  return absl::OkStatus();
}

// The tokens of one model mean nothing to the tokenizer of another.
const ServedModel* SearchIndexer::ModelOf(const StateRecord& record) const {
  for (const ServedModel* model : models_) {
    if (model->model()->fingerprint() == record.fingerprint) return model;
  }
  return nullptr;
}

}  // namespace anabranch
