#include "clients/cli/state_plot.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "clients/cli/format.h"
#include "clients/cli/graph_layout.h"
#include "clients/cli/svg.h"

namespace anabranch::cli {
namespace {

constexpr int kMaxCells = 64;
constexpr const char* kKinds[] = {"recurrent", "steps", "window", "keys", "values"};

// One heat map: the layers that have a tensor of a kind.
struct Map {
  std::string kind;
  std::vector<const v1::TensorStats*> layers;
  std::vector<std::vector<float>> cells;
  float low = 0, high = 0;

  // 0 to 1 within the map.
  double Level(float value) const { return high > low ? (value - low) / (high - low) : 0; }
  std::string Title() const {
    return absl::StrCat(kind, " [", absl::StrJoin(layers[0]->shape(), ", "),
                        "]: norm of each head");
  }
};

std::vector<float> Cells(const v1::TensorStats& tensor) {
  const int heads = tensor.norms_size(), cells = std::min(heads, kMaxCells);
  std::vector<float> values(cells);
  for (int i = 0; i < heads; ++i) {
    float& cell = values[int64_t{i} * cells / heads];
    cell = std::max(cell, tensor.norms(i));
  }
  return values;
}

std::vector<Map> Maps(const v1::StateStats& stats) {
  std::vector<Map> maps;
  for (const char* kind : kKinds) {
    Map map;
    map.kind = kind;
    for (const v1::TensorStats& tensor : stats.tensors()) {
      if (tensor.kind() != kind || tensor.norms().empty()) continue;
      map.layers.push_back(&tensor);
      map.cells.push_back(Cells(tensor));
      const auto [low, high] =
          std::minmax_element(map.cells.back().begin(), map.cells.back().end());
      map.low = map.layers.size() == 1 ? *low : std::min(map.low, *low);
      map.high = std::max(map.high, *high);
    }
    if (!map.layers.empty()) maps.push_back(std::move(map));
  }
  return maps;
}

std::string Summary(const v1::StateStats& stats) {
  std::string text =
      absl::StrCat(ShortId(stats.state_id()), ", ", HumanCount(stats.token_count()), " tokens");
  for (const v1::TensorStats& tensor : stats.tensors()) {
    if (tensor.kind() != "logits" || tensor.norms().empty()) continue;
    absl::StrAppendFormat(&text, ", logits: norm %.4g, largest %.4g", tensor.norms(0),
                          tensor.max_abs());
  }
  int64_t nonfinite = 0;
  for (const v1::TensorStats& tensor : stats.tensors()) nonfinite += tensor.nonfinite_count();
  if (nonfinite > 0) absl::StrAppend(&text, ", ", nonfinite, " values are not finite");
  return text;
}

std::string TextCell(double level, bool color) {
  if (color) {
    unsigned rgb = 0;
    const std::string hex = HeatColor(level);
    if (!absl::SimpleHexAtoi(hex.substr(1), &rgb)) return " ";
    return absl::StrFormat("\033[38;2;%d;%d;%dm█\033[0m", rgb >> 16, rgb >> 8 & 255, rgb & 255);
  }
  constexpr const char* kShades[] = {"·", "░", "▒", "▓", "█"};
  return kShades[std::clamp(static_cast<int>(level * 5), 0, 4)];
}

std::string TextLegend(const Map& map, bool color) {
  std::string legend = absl::StrFormat("  %.4g ", map.low);
  const int steps = color ? 20 : 5;
  for (int i = 0; i < steps; ++i) legend += TextCell((i + 0.5) / steps, color);
  return legend + absl::StrFormat(" %.4g\n", map.high);
}

std::string SvgMap(const Map& map, int x, int y) {
  constexpr int kCell = 12;
  std::string svg = SvgText(x - 60, y - 8, "t", map.Title());
  for (size_t i = 0; i < map.layers.size(); ++i) {
    const int row = y + static_cast<int>(i) * kCell;
    svg += SvgText(x - 60, row + 10, "d", absl::StrCat("layer ", map.layers[i]->layer()));
    for (size_t j = 0; j < map.cells[i].size(); ++j) {
      absl::StrAppendFormat(&svg,
                            "<rect x=\"%d\" y=\"%d\" width=\"11\" height=\"11\" "
                            "fill=\"%s\"><title>layer %d, cell %d: "
                            "%.4g</title></rect>\n",
                            x + static_cast<int>(j) * kCell, row,
                            HeatColor(map.Level(map.cells[i][j])), map.layers[i]->layer(),
                            static_cast<int>(j), map.cells[i][j]);
    }
  }
  const int legend = y + static_cast<int>(map.layers.size()) * kCell + 8;
  const std::string low = absl::StrFormat("%.4g", map.low);
  svg += SvgText(x - 60, legend + 10, "d", low);
  for (int i = 0; i < 20; ++i) {
    absl::StrAppendFormat(&svg, "<rect x=\"%d\" y=\"%d\" width=\"8\" height=\"11\" fill=\"%s\"/>\n",
                          x + i * 8, legend, HeatColor((i + 0.5) / 20));
  }
  return svg + SvgText(x + 168, legend + 10, "d", absl::StrFormat("%.4g", map.high));
}

}  // namespace

std::string PlotText(const v1::StateStats& stats, bool color) {
  std::string text = absl::StrCat(Summary(stats), "\n");
  for (const Map& map : Maps(stats)) {
    absl::StrAppend(&text, "\n", map.Title(), "\n");
    for (size_t i = 0; i < map.layers.size(); ++i) {
      absl::StrAppendFormat(&text, "layer %3d  ", map.layers[i]->layer());
      for (const float value : map.cells[i]) text += TextCell(map.Level(value), color);
      text += "\n";
    }
    text += TextLegend(map, color);
  }
  return text;
}

std::string PlotSvg(const v1::StateStats& stats) {
  constexpr int kLeft = 80, kAround = 16;
  const std::vector<Map> maps = Maps(stats);
  const std::string title = Summary(stats);
  size_t width = title.size() * 8;
  int y = 60;
  std::string body = SvgText(kAround, 24, "t", title);
  for (const Map& map : maps) {
    body += SvgMap(map, kLeft, y);
    width = std::max(width, map.Title().size() * 8);
    for (const std::vector<float>& row : map.cells) width = std::max(width, row.size() * 12 + 64);
    y += static_cast<int>(map.layers.size()) * 12 + 60;
  }
  return absl::StrCat(SvgBegin(static_cast<int>(width) + 2 * kAround, y, "Norms of a state"), body,
                      SvgEnd());
}

}  // namespace anabranch::cli
