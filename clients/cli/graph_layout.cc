#include "clients/cli/graph_layout.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "clients/cli/format.h"

namespace anabranch::cli {
namespace {

constexpr size_t kShortestFold = 3;

// The states by index, in the order of the answer, with who goes on from whom among them.
struct Family {
  std::vector<std::vector<int>> parents, children;
};

Family FamilyOf(const v1::GetGraphResponse& graph) {
  absl::flat_hash_map<std::string, int> index;
  for (const v1::LogEntry& entry : graph.entries()) index.emplace(entry.state().id(), index.size());
  Family family;
  family.parents.resize(graph.entries_size());
  family.children.resize(graph.entries_size());
  for (int i = 0; i < graph.entries_size(); ++i) {
    for (const std::string& base : graph.entries(i).base_ids()) {
      const auto found = index.find(base);
      if (found == index.end()) continue;
      family.parents[i].push_back(found->second);
      family.children[found->second].push_back(i);
    }
  }
  return family;
}

// In the middle of one line, and nothing names it.
bool Foldable(const v1::LogEntry& entry, const Family& family, int index) {
  return family.parents[index].size() == 1 && entry.base_ids_size() == 1 &&
         family.children[index].size() == 1 && entry.ref_names().empty() &&
         entry.session_ids().empty() && entry.state().labels().empty();
}

// For each state the row it is in; fills the rows but for their columns.
std::vector<int> MakeRows(const v1::GetGraphResponse& graph, const Family& family, bool fold,
                          std::vector<GraphRow>* rows) {
  const int count = graph.entries_size();
  std::vector<int> row_of(count, -1);
  for (int i = 0; i < count; ++i) {
    if (row_of[i] >= 0) continue;
    std::vector<int> run;
    for (int at = i; fold && Foldable(graph.entries(at), family, at); at = family.parents[at][0]) {
      run.push_back(at);
    }
    if (run.size() < kShortestFold) run.assign(1, i);
    for (const int each : run) row_of[each] = rows->size();
    GraphRow row;
    row.entry = graph.entries(i);
    if (run.size() > 1) {
      row.folded = run.size();
      row.folded_from = graph.entries(run.back()).state().token_count();
    }
    const int oldest = run.back();
    row.cut =
        graph.entries(oldest).base_ids_size() != static_cast<int>(family.parents[oldest].size());
    rows->push_back(std::move(row));
  }
  return row_of;
}

// Columns: a lane waits for the row that it leads to; -1: it is free.
class Lanes {
 public:
  // The column of a row: of the first lane that waits for it, and all that do become free.
  int Take(int row) {
    int column = -1;
    for (size_t lane = 0; lane < waits_.size(); ++lane) {
      if (waits_[lane] != row) continue;
      if (column < 0) column = lane;
      waits_[lane] = -1;
    }
    return column < 0 ? Free() : column;
  }
  void Set(int lane, int row) { waits_[lane] = row; }
  // A lane to `row`: one that waits for it already, or a free one.
  int To(int row) {
    const auto found = std::find(waits_.begin(), waits_.end(), row);
    const int lane = found != waits_.end() ? found - waits_.begin() : Free();
    waits_[lane] = row;
    return lane;
  }
  int count() const { return waits_.size(); }

 private:
  int Free() {
    const auto found = std::find(waits_.begin(), waits_.end(), -1);
    const int lane = found - waits_.begin();
    if (found == waits_.end()) waits_.push_back(-1);
    return lane;
  }
  std::vector<int> waits_;
};

}  // namespace

GraphLayout LayOut(const v1::GetGraphResponse& graph, bool fold) {
  const Family family = FamilyOf(graph);
  GraphLayout layout;
  const std::vector<int> row_of = MakeRows(graph, family, fold, &layout.rows);
  std::vector<std::vector<int>> parents(layout.rows.size());
  for (int i = 0; i < graph.entries_size(); ++i) {
    for (const int parent : family.parents[i]) {
      if (row_of[parent] != row_of[i]) parents[row_of[i]].push_back(row_of[parent]);
    }
  }
  Lanes lanes;
  for (int row = 0; row < static_cast<int>(layout.rows.size()); ++row) {
    const int column = lanes.Take(row);
    layout.rows[row].column = column;
    for (size_t i = 0; i < parents[row].size(); ++i) {
      const int lane = i == 0 ? column : lanes.To(parents[row][i]);
      lanes.Set(lane, parents[row][i]);
      layout.edges.push_back({row, parents[row][i], lane});
    }
  }
  layout.columns = lanes.count();
  return layout;
}

std::string ShortId(const std::string& id) { return id.substr(0, 11); }

std::string RowText(const GraphRow& row) {
  const v1::State& state = row.entry.state();
  if (row.folded > 0) {
    return absl::StrCat(row.folded, " states from ", HumanCount(row.folded_from), " to ",
                        HumanCount(state.token_count()), " tokens");
  }
  std::string text = absl::StrCat(HumanCount(state.token_count()), " ",
                                  state.kind().empty() ? state.operation() : state.kind(), " ",
                                  ShortId(state.id()), " ", HumanBytes(state.size_bytes()));
  if (row.cut) absl::StrAppend(&text, " …");
  return text;
}

std::vector<std::string> RowNames(const GraphRow& row) {
  std::vector<std::string> names(row.entry.ref_names().begin(), row.entry.ref_names().end());
  for (const std::string& id : row.entry.session_ids()) names.push_back(absl::StrCat("(", id, ")"));
  return names;
}

}  // namespace anabranch::cli
