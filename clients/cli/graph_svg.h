// A graph as one SVG file: a dot for each state, lines to its parents, boxes for refs and sessions.
#pragma once

#include <string>

#include "clients/cli/graph_layout.h"

namespace anabranch::cli {

// Equal layouts give equal bytes. `title` is what a reader without pictures gets.
std::string GraphSvg(const GraphLayout& layout, const std::string& title);

}  // namespace anabranch::cli
