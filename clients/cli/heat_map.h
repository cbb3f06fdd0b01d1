// A picture of a number per layer and part (head), for a terminal and as SVG.
#pragma once

#include <string>
#include <vector>

namespace anabranch::cli {

struct HeatMap {
  struct Row {
    std::string label;
    std::vector<double> cells;
  };
  std::string title;
  double low = 0, high = 1;  // of the scale; values outside are drawn as its ends
  std::vector<Row> rows;     // from top to bottom, of any lengths
};

// One line a row, then the scale: shades, or with `color` colours. Wider rows than `columns` show
// the largest value of neighbouring cells.
std::string HeatMapText(const HeatMap& map, bool color, int columns = 100);

// One SVG file. Each cell has a tooltip with its row, index and value.
std::string HeatMapSvg(const HeatMap& map);

}  // namespace anabranch::cli
