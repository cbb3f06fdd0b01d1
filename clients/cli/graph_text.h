// A graph for the terminal.
//
//   ● 1,500 merge st-0d5c33a1 1.2 MiB [both]
//   ├─╮
//   │ ● 800 turn st-77aa01c2 1.2 MiB [ben] (ben)
//   ● 700 turn st-1b9f7a55 1.2 MiB [ann] (ann)
#pragma once

#include <string>

#include "clients/cli/graph_layout.h"

namespace anabranch::cli {

std::string GraphText(const GraphLayout& layout);

}  // namespace anabranch::cli
