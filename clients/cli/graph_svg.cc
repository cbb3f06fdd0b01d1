#include "clients/cli/graph_svg.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "clients/cli/svg.h"

namespace anabranch::cli {
namespace {

constexpr int kMargin = 16, kRowHeight = 28, kColumnWidth = 20, kBoxPadding = 5;
// Of middle lightness: they stand out from white and from black.
constexpr const char* kColors[] = {"#3b82d6", "#d9731a", "#2f9e5b",
                                   "#c2479e", "#8a63d2", "#c4453c"};

int X(int column) { return kMargin + column * kColumnWidth; }
int Y(int row) { return kMargin + row * kRowHeight; }
const char* Color(int column) { return kColors[column % std::size(kColors)]; }
int TextWidth(const std::string& text) {
  // Counts characters, not bytes: continuation bytes of UTF-8 are 10xxxxxx.
  const auto count =
      std::count_if(text.begin(), text.end(), [](unsigned char c) { return (c & 0xc0) != 0x80; });
  return static_cast<int>(std::ceil(count * kSvgCharWidth));
}

std::string EdgePath(const GraphLayout& layout, const GraphEdge& edge) {
  const int half = kRowHeight / 2;
  const int x1 = X(layout.rows[edge.from_row].column), y1 = Y(edge.from_row);
  const int x2 = X(layout.rows[edge.to_row].column), y2 = Y(edge.to_row);
  const int x = X(edge.lane);
  std::string path = absl::StrCat("M", x1, " ", y1);
  int y = y1;
  if (edge.to_row == edge.from_row + 1 && x != x1 && x != x2) {
    // No room for two bends.
    absl::StrAppend(&path, "C", x1, " ", y1 + half, " ", x2, " ", y2 - half, " ", x2, " ", y2);
    return absl::StrCat("<path class=\"l\" stroke=\"", Color(edge.lane), "\" d=\"", path, "\"/>\n");
  }
  if (x != x1) {
    absl::StrAppend(&path, "C", x1, " ", y1 + half, " ", x, " ", y1 + half, " ", x, " ",
                    y1 + kRowHeight);
    y = y1 + kRowHeight;
  }
  if (x == x2) {
    if (y != y2) absl::StrAppend(&path, "V", y2);
  } else {
    if (y < y2 - kRowHeight) absl::StrAppend(&path, "V", y2 - kRowHeight);
    absl::StrAppend(&path, "C", x, " ", y2 - half, " ", x2, " ", y2 - half, " ", x2, " ", y2);
  }
  return absl::StrCat("<path class=\"l\" stroke=\"", Color(edge.lane), "\" d=\"", path, "\"/>\n");
}

std::string Dot(const GraphRow& row, int index) {
  const int x = X(row.column), y = Y(index);
  if (row.folded > 0) {
    return absl::StrCat("<circle class=\"bg\" cx=\"", x, "\" cy=\"", y, "\" r=\"7\"/>",
                        "<path class=\"l f\" stroke=\"", Color(row.column), "\" d=\"M", x, " ",
                        y - 8, "V", y + 8, "\"/>\n");
  }
  const std::string title = absl::StrCat("<title>", row.entry.state().id(), "</title>");
  if (row.entry.base_ids_size() > 1) {
    return absl::StrCat("<path fill=\"", Color(row.column), "\" d=\"M", x, " ", y - 7, "l7 7l-7 7",
                        "l-7 -7z\">", title, "</path>\n");
  }
  return absl::StrCat("<circle fill=\"", Color(row.column), "\" cx=\"", x, "\" cy=\"", y,
                      "\" r=\"5\">", title, "</circle>\n");
}

// The row's words, from `x` on; returns where they end.
int Words(const GraphRow& row, int index, int x, std::string* svg) {
  const int baseline = Y(index) + 4;
  const std::string text = RowText(row);
  *svg += SvgText(x, baseline, row.folded > 0 ? "d" : "t", text);
  x += TextWidth(text) + 10;
  for (const std::string& name : RowNames(row)) {
    const int width = TextWidth(name) + 2 * kBoxPadding;
    absl::StrAppend(svg, "<rect class=\"b\" x=\"", x, "\" y=\"", Y(index) - 9, "\" width=\"", width,
                    "\" height=\"18\" rx=\"4\"/>");
    *svg += SvgText(x + kBoxPadding, baseline, "n", name);
    x += width + 6;
  }
  return x;
}

}  // namespace

std::string GraphSvg(const GraphLayout& layout, const std::string& title) {
  const int rows = layout.rows.size();
  const int text_x = X(std::max(layout.columns, 1));
  int width = text_x + 200;
  std::string lines, words;
  for (const GraphEdge& edge : layout.edges) lines += EdgePath(layout, edge);
  for (int i = 0; i < rows; ++i) {
    lines += Dot(layout.rows[i], i);
    width = std::max(width, Words(layout.rows[i], i, text_x, &words) + kMargin);
  }
  return absl::StrCat(SvgBegin(width, Y(std::max(rows, 1) - 1) + kMargin, title), lines, words,
                      SvgEnd());
}

}  // namespace anabranch::cli
