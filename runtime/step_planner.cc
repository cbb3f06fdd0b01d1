#include "runtime/step_planner.h"

#include <algorithm>

namespace anabranch {
namespace {

// How many reading works besides the oldest get a slice, and how large a part of the budget it is.
constexpr size_t kSlicedReaders = 3;
constexpr int64_t kSlicePart = 8;

// Hands out reading rows within the two budgets.
class ReadBudget {
 public:
  ReadBudget(absl::Span<const StepCandidate> candidates, int64_t rows, int64_t score_rows)
      : candidates_(candidates),
        granted_(candidates.size(), 0),
        rows_(rows),
        score_rows_(score_rows) {}

  void Grant(size_t index, int64_t limit) {
    const StepCandidate& candidate = candidates_[index];
    int64_t rows = std::min({candidate.rows - granted_[index], limit, rows_});
    if (candidate.scores) {
      rows = std::min(rows, score_rows_);
      score_rows_ -= rows;
    }
    rows_ -= rows;
    granted_[index] += rows;
  }

  int64_t left() const { return rows_; }
  int64_t granted(size_t index) const { return granted_[index]; }

 private:
  absl::Span<const StepCandidate> candidates_;
  std::vector<int64_t> granted_;
  int64_t rows_, score_rows_;
};

}  // namespace

// `count` of the indexes, the next after the one served last, wrapping around.
std::vector<size_t> StepPlanner::Rotate(absl::Span<const StepCandidate> candidates,
                                        absl::Span<const size_t> indexes, size_t count,
                                        uint64_t& cursor) {
  std::vector<size_t> chosen;
  if (indexes.empty() || count == 0) return chosen;
  const auto next = std::upper_bound(indexes.begin(), indexes.end(), cursor,
                                     [&](uint64_t id, size_t i) { return id < candidates[i].id; });
  const size_t start = next - indexes.begin();
  for (size_t i = 0; i < std::min(count, indexes.size()); ++i) {
    chosen.push_back(indexes[(start + i) % indexes.size()]);
  }
  cursor = candidates[chosen.back()].id;
  return chosen;
}

std::vector<StepShare> StepPlanner::Plan(absl::Span<const StepCandidate> candidates) {
  std::vector<size_t> decoders, readers;
  for (size_t i = 0; i < candidates.size(); ++i) {
    (candidates[i].decodes ? decoders : readers).push_back(i);
  }
  std::vector<StepShare> shares;
  for (size_t i : Rotate(candidates, decoders, limits_.decode_rows, decode_cursor_)) {
    shares.push_back({i, 1});
  }
  if (!readers.empty()) {
    const int64_t rows = decoders.empty() ? limits_.read_rows : limits_.read_rows_decoding;
    ReadBudget budget(candidates, rows, limits_.score_rows);
    // Slices never take more than half, so that the oldest always advances.
    const int64_t slice = std::max<int64_t>(1, rows / kSlicePart);
    const size_t slices = std::min<int64_t>(kSlicedReaders, rows / 2 / slice);
    for (size_t i : Rotate(candidates, absl::MakeSpan(readers).subspan(1), slices, read_cursor_)) {
      budget.Grant(i, slice);
    }
    for (size_t i : readers) budget.Grant(i, budget.left());
    for (size_t i : readers) {
      if (budget.granted(i) > 0) shares.push_back({i, static_cast<int32_t>(budget.granted(i))});
    }
  }
  std::sort(shares.begin(), shares.end(),
            [](const StepShare& a, const StepShare& b) { return a.index < b.index; });
  return shares;
}

}  // namespace anabranch
