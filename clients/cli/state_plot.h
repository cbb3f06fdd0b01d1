// How large the tensors of a state are, as heat maps: a row for each layer, a cell for each head,
// one map for each kind of tensor.
#pragma once

#include <string>
#include <vector>

#include "anabranch/v1/states.pb.h"

namespace anabranch::cli {

// For the terminal: shades of blocks, or with `color` coloured ones. More than 64 heads are shown
// in 64 cells, each the largest of its heads.
std::string PlotText(const v1::StateStats& stats, bool color);

// One SVG file. Equal statistics give equal bytes.
std::string PlotSvg(const v1::StateStats& stats);

}  // namespace anabranch::cli
