#include "clients/cli/graph_text.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"

namespace anabranch::cli {
namespace {

// Which ways lines leave a cell.
enum Way : unsigned { kUp = 1, kDown = 2, kLeft = 4, kRight = 8 };

const char* Line(unsigned ways) {
  constexpr const char* kLines[] = {" ", "╵", "╷", "│", "╴", "╯", "╮", "┤",
                                    "╶", "╰", "╭", "├", "─", "┴", "┬", "┼"};
  return kLines[ways];
}

void TrimEnd(std::string* line) {
  while (!line->empty() && line->back() == ' ') line->pop_back();
}

class Drawing {
 public:
  explicit Drawing(const GraphLayout& layout) : layout_(layout) {}

  std::string Draw() {
    for (row_ = 0; row_ < static_cast<int>(layout_.rows.size()); ++row_) {
      Bends(/*above=*/true);
      Node();
      Bends(/*above=*/false);
    }
    return std::move(text_);
  }

 private:
  // Columns with a line that passes the row.
  std::vector<unsigned> Passing() const {
    std::vector<unsigned> cells(layout_.columns);
    for (const GraphEdge& edge : layout_.edges) {
      if (edge.from_row < row_ && edge.to_row > row_) cells[edge.lane] = kUp | kDown;
    }
    return cells;
  }

  void Bends(bool above) {
    const int column = layout_.rows[row_].column;
    std::vector<unsigned> cells = Passing();
    int low = column, high = column;
    for (const GraphEdge& edge : layout_.edges) {
      if ((above ? edge.to_row : edge.from_row) != row_) continue;
      cells[edge.lane] |= above ? kUp : kDown;
      low = std::min(low, edge.lane);
      high = std::max(high, edge.lane);
    }
    if (low == high) return;
    cells[column] |= above ? kDown : kUp;
    for (int i = low; i < high; ++i) {
      cells[i] |= kRight;
      cells[i + 1] |= kLeft;
    }
    std::string line;
    for (const unsigned ways : cells) {
      absl::StrAppend(&line, Line(ways), (ways & kRight) != 0 ? "─" : " ");
    }
    TrimEnd(&line);
    absl::StrAppend(&text_, line, "\n");
  }

  void Node() {
    const GraphRow& row = layout_.rows[row_];
    std::vector<unsigned> cells = Passing();
    std::string line;
    for (int i = 0; i < layout_.columns; ++i) {
      const char* node = row.folded > 0 ? "┆" : row.entry.base_ids_size() > 1 ? "◆" : "●";
      absl::StrAppend(&line, i == row.column ? node : Line(cells[i]), " ");
    }
    absl::StrAppend(&line, RowText(row));
    for (const std::string& name : RowNames(row)) {
      absl::StrAppend(&line, " ", name[0] == '(' ? name : absl::StrCat("[", name, "]"));
    }
    absl::StrAppend(&text_, line, "\n");
  }

  const GraphLayout& layout_;
  int row_ = 0;
  std::string text_;
};

}  // namespace

std::string GraphText(const GraphLayout& layout) { return Drawing(layout).Draw(); }

}  // namespace anabranch::cli
