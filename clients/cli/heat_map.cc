#include "clients/cli/heat_map.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/svg.h"

namespace anabranch::cli {
namespace {

double Level(const HeatMap& map, double value) {
  if (!(map.high > map.low) || !std::isfinite(value)) return 0;
  return std::clamp((value - map.low) / (map.high - map.low), 0.0, 1.0);
}

std::string TextCell(double level, bool color) {
  constexpr char kShades[] = " .:-=+*#%@";
  if (!color) {
    const int shades = sizeof(kShades) - 1;
    return {kShades[std::min(static_cast<int>(level * shades), shades - 1)]};
  }
  unsigned rgb = 0;
  if (!absl::SimpleHexAtoi(HeatColor(level).substr(1), &rgb)) return " ";
  return absl::StrFormat("\033[48;2;%d;%d;%dm \033[0m", rgb >> 16, rgb >> 8 & 255, rgb & 255);
}

// Of the longest label and of the longest row.
std::pair<int, int> Sizes(const HeatMap& map) {
  size_t label = 0, cells = 1;
  for (const HeatMap::Row& row : map.rows) {
    label = std::max(label, row.label.size());
    cells = std::max(cells, row.cells.size());
  }
  return {static_cast<int>(label), static_cast<int>(cells)};
}

}  // namespace

std::string HeatMapText(const HeatMap& map, bool color, int columns) {
  const auto [label, cells] = Sizes(map);
  const int room = std::max(columns - label - 1, 10), gather = (cells + room - 1) / room;
  std::string text;
  for (const HeatMap::Row& row : map.rows) {
    absl::StrAppendFormat(&text, "%*s ", label, row.label);
    for (auto cell = row.cells.begin(); cell != row.cells.end();) {
      const auto next = cell + std::min<int64_t>(gather, row.cells.end() - cell);
      text += TextCell(Level(map, *std::max_element(cell, next)), color);
      cell = next;
    }
    text += "\n";
  }
  absl::StrAppendFormat(&text, "%s: %.3g ", map.title, map.low);
  for (int i = 0; i < 10; ++i) text += TextCell(i / 9.0, color);
  absl::StrAppendFormat(&text, " %.3g", map.high);
  if (gather > 1) absl::StrAppend(&text, "; a cell is the largest of ", gather);
  return text + "\n";
}

std::string HeatMapSvg(const HeatMap& map) {
  constexpr int kCell = 12, kTop = 40;
  const auto [label, cells] = Sizes(map);
  const int left = 16 + static_cast<int>(label * kSvgCharWidth);
  const int height = kTop + kCell * static_cast<int>(map.rows.size());
  std::string svg = SvgBegin(left + kCell * std::max(cells, 24) + 16, height + 40, map.title);
  svg += SvgText(8, 24, "t", map.title);
  int y = kTop;
  for (const HeatMap::Row& row : map.rows) {
    svg += SvgText(8, y + 10, "d", row.label);
    int x = left;
    for (size_t i = 0; i < row.cells.size(); ++i, x += kCell) {
      absl::StrAppendFormat(&svg,
                            "<rect x=\"%d\" y=\"%d\" width=\"11\" height=\"11\" fill=\"%s\">"
                            "<title>%s, %d: %.4g</title></rect>\n",
                            x, y, HeatColor(Level(map, row.cells[i])), XmlEscape(row.label), i,
                            row.cells[i]);
    }
    y += kCell;
  }
  for (int i = 0; i < 20; ++i) {
    absl::StrAppendFormat(&svg, "<rect x=\"%d\" y=\"%d\" width=\"8\" height=\"11\" fill=\"%s\"/>\n",
                          left + 8 * i, y + 10, HeatColor((i + 0.5) / 20));
  }
  svg += SvgText(left + 168, y + 20, "d", absl::StrFormat("%.3g to %.3g", map.low, map.high));
  return svg + SvgEnd();
}

}  // namespace anabranch::cli
